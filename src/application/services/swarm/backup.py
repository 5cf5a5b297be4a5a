"""Backup: puts what Memory remembers, and the figures, on the disk."""

from __future__ import annotations

import asyncio

from application.services.swarm.session_store import SessionStore
from application.services.swarm.voice import Voice
from application.services.swarm.words import BACKUP, COORDINATOR, MEMORY, Say
from domain.models.message import Message, Payload

__all__ = ["METRICS", "Backup", "vault_document", "vault_name"]

METRICS = "metrics.json"


def vault_name(*, is_coin: bool) -> str:
    """The name of the document with the results."""
    return "vault/coin_flips.json" if is_coin else "vault/results.json"


def vault_document(results: list[Payload], sums: dict[str, Payload], *, is_coin: bool) -> dict[str, Payload]:
    """The document with the results: `flips` and their sums for the coin, `results` for any other task."""
    return {"flips": results, **sums} if is_coin else {"results": results}


class Backup:
    """Writes documents that are whole or absent, and on the disk when it says so."""

    name = BACKUP
    groups: tuple[str, ...] = ()

    def __init__(self, voice: Voice, store: SessionStore, *, is_coin: bool) -> None:
        self._voice = voice
        self._store = store
        self._is_coin = is_coin
        self._results: list[Payload] = []
        self._parts = 0

    async def take(self, messages: list[Message]) -> None:
        """Collect, and write when told to."""
        for message in messages:
            payload = message.payload if isinstance(message.payload, dict) else {}
            if message.type == Say.RESULTS and message.sender == MEMORY:
                results = payload.get("results")
                self._results += results if isinstance(results, list) else []
                self._parts += 1
            elif message.type == Say.WRITE and message.sender == COORDINATOR:
                await self._voice.answer(message, {"bytes": await self._write(payload), "parts": self._parts})

    async def _write(self, payload: dict[str, Payload]) -> int:
        metrics = payload.get("metrics")
        if isinstance(metrics, dict):
            # In a thread, because a sync to the disk takes as long as the disk likes.
            return await asyncio.to_thread(self._store.replace, METRICS, metrics)
        sums = payload.get("sums")
        document = vault_document(self._results, sums if isinstance(sums, dict) else {}, is_coin=self._is_coin)
        return await asyncio.to_thread(self._store.replace, vault_name(is_coin=self._is_coin), document)
