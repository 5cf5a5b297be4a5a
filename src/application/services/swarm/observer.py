"""The Observer: watches the talk go by, counts it, and tells whoever watches the run."""

from __future__ import annotations

import asyncio
import time
from asyncio import TimerHandle
from collections import Counter
from collections.abc import Callable

from application.ports.run_observer import RunObserver
from application.services.swarm.task import TaskTerms
from application.services.swarm.voice import Voice
from application.services.swarm.words import COORDINATOR, DELEGATIONS, EVENTS, OBSERVER, Delegated, Say, text_of
from domain.models.message import Message, Payload
from domain.models.run import JsonValue

__all__ = ["Observer"]

_NOTE_EVERY_S = 0.1


class Observer:
    """Counts for itself what it hears, and passes on at most ten notes a second."""

    name = OBSERVER

    def __init__(
        self,
        voice: Voice,
        terms: TaskTerms,
        run: RunObserver,
        *,
        agents: int,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.groups = (DELEGATIONS, EVENTS, terms.group)
        self._voice = voice
        self._terms = terms
        self._run = run
        self._agents = agents
        self._timer = timer
        self._noted_at = float("-inf")
        # What will note what was too soon after the last note.
        self._later: TimerHandle | None = None
        self._closed = False
        self._waiting: set[str] = set()
        self._answered: set[str] = set()
        self._most_waiting = 0
        self._results: Counter[str] = Counter()
        self._failed = 0

    async def take(self, messages: list[Message]) -> None:
        """Count, and note."""
        terms = self._terms
        for message in messages:
            if message.recipient == terms.group:
                self._hear(message)
            elif message.sender != COORDINATOR:
                continue
            elif message.type == Say.DELEGATE:
                for delegated in Delegated.read(message.payload):
                    self._waiting.update(map(terms.agent_id, delegated.numbers))
                self._most_waiting = max(self._most_waiting, len(self._waiting))
            elif message.type == Say.EVENT and isinstance(message.payload, dict):
                self._run.note(f"swarm.{text_of(message.payload.get('event'))}", _json({**message.payload}))
            elif message.type == Say.COUNTS:
                self._note()
                self.close()
                await self._voice.answer(
                    message, {"seen": len(self._answered), "most_in_flight": self._most_waiting, "failed": self._failed}
                )
        if self._closed:
            return
        if self._timer() - self._noted_at >= _NOTE_EVERY_S:
            self._note()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(_NOTE_EVERY_S, self._note)

    def close(self) -> None:
        """Note nothing more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()

    def _hear(self, message: Message) -> None:
        if message.type == Say.FAILED:
            self._failed += 1
            if isinstance(message.payload, dict):
                self._waiting.discard(str(message.payload.get("agent_id")))
            return
        self._waiting.discard(message.sender)
        if message.sender not in self._answered and isinstance(message.payload, dict):
            self._answered.add(message.sender)
            if self._terms.allowed is not None:
                self._results[str(message.payload.get("result"))] += 1

    def _note(self) -> None:
        self._noted_at = self._timer()
        if self._later is not None:
            self._later.cancel()
            self._later = None
        results: dict[str, JsonValue] = {name: self._results[name] for name in sorted(self._terms.allowed or ())}
        self._run.note(
            "swarm.progress",
            {
                "agents": self._agents,
                "received": len(self._answered),
                "in_flight": len(self._waiting),
                "failed": self._failed,
                "results": results,
            },
        )


def _json(payload: dict[str, Payload]) -> dict[str, JsonValue]:
    return {name: str(value) if isinstance(value, bytes | list | dict) else value for name, value in payload.items()}
