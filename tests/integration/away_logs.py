"""A witness log that is away, or hangs, until it is told to work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from application.ports.witness_log import Disclosure, LoggedEntry
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog

__all__ = ["NOON", "AwayLog", "unavailable"]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class AwayLog:
    """A log that is away, or hangs, until it is told to work; what hangs goes through once it may."""

    def __init__(self) -> None:
        self.inner = InMemoryWitnessLog()
        self.problem: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = asyncio.Event()

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        self.asked.set()
        await self.answers.wait()
        if self.problem is not None:
            raise self.problem
        return await self.inner.append(documents, disclosures=disclosures)

    @property
    def types(self) -> list[str]:
        return [document["type"] for document in self.documents]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(entry.entry) for entry in self.inner.logged]


def unavailable() -> DependencyUnavailableError:
    return DependencyUnavailableError(dependency="database", problem="it is away")
