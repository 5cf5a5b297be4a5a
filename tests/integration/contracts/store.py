"""An adapter of the ports of storage, as every contract of storage is held against it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from application.ports.deliberation_repository import DeliberationStore
from application.ports.witness_log import WitnessLog
from domain.models.deliberation import Deliberation
from domain.models.money import KeyBudget
from domain.models.round import AgentRecord
from domain.witness.entry import accepted
from tests.deliberation_specimens import SettableClock, committing, deliberation, ended, opening, started

__all__ = ["BUDGETS", "LEASE_S", "Repository", "Store"]

LEASE_S = 10.0
BUDGETS = {"saver": KeyBudget(day=100, month=250), "monthly": KeyBudget(month=100)}
"""Of two API keys, in picodollars; others have none."""


class Repository(DeliberationStore, Protocol):
    """All three ports, which every adapter fulfils at once, and what opens and shuts them."""

    async def close(self) -> None: ...
    async def check(self) -> None: ...


@dataclass(frozen=True)
class Store:
    """An adapter under test: a repository, more of them over the same data, its clock, a way to hold commits back, and its log."""

    repository: Repository
    open_another: Callable[[], Awaitable[Repository]]
    clock: SettableClock
    hold_commits: Callable[[], AbstractContextManager[None]]
    log: WitnessLog

    async def add(self, **facts: object) -> Deliberation:
        """A new deliberation, added."""
        added = deliberation(**facts)  # type: ignore[arg-type]
        await self.repository.add(added, accepted(added))
        return added

    async def start(self, **facts: object) -> Deliberation:
        """A new deliberation, added and started."""
        running = started(await self.add(**facts))
        await self.repository.append(opening(running))
        return running

    async def end(self, running: Deliberation, records: Sequence[AgentRecord]) -> Deliberation:
        """The same one, its records stored and ended."""
        over = ended(running, records)
        await self.repository.append(committing(running.id, records=records))
        await self.repository.append(committing(running.id, deliberation=over))
        return over

    async def sequences(self, deliberation_id: str) -> list[int]:
        """The numbers of all committed events, in the order read."""
        return [event.sequence for event in await self.repository.events(deliberation_id, after=0, limit=100_000)]
