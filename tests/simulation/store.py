"""A store that outlives the processes which use it: slow, away, failing, and losing the news of what it has done."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from application.ports.clock import Clock
from application.ports.deliberation_repository import (
    Claim,
    Commit,
    Page,
    RememberedKey,
    Renewal,
    StoredDeliberation,
    StoredRecord,
    Waiting,
)
from application.ports.idempotency import IdempotencyKey
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.event import Event
from domain.models.money import KeyBudget, picodollars
from domain.models.search import Search
from domain.models.spending import EVERYBODY
from domain.witness.entry import Entry
from infrastructure.persistence.group_commit import GroupCommit
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog
from tests.simulation.machine import SimulatedProcess, in_no_process

__all__ = ["SimulatedStore", "StoreLink", "Weather", "immediately"]

_T = TypeVar("_T")
_PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Weather:
    """How often a write is slow, fails, or succeeds unheard of; how often a read fails; how often the queue repeats a job."""

    slow: float = 0.0
    failing: float = 0.0
    unheard: float = 0.0
    unreadable: float = 0.0
    repeated: float = 0.0


@dataclass(slots=True)
class _Write:
    act: Callable[[], Coroutine[Any, Any, Any]]
    commit: Commit | None = None


class SimulatedStore:
    """The database: what it has taken stands, whatever became of whoever sent it."""

    def __init__(
        self,
        *,
        clock: Clock,
        chance: random.Random,
        weather: Weather,
        note: Callable[[], None],
        key_day_usd: float | None = None,
    ) -> None:
        """`note` is called at each fault."""
        self.log = InMemoryWitnessLog()
        budgets = {} if key_day_usd is None else {EVERYBODY: KeyBudget(day=picodollars(key_day_usd))}
        self.repository = InMemoryRepository(clock=clock, log=self.log, budgets=budgets)
        self.is_away = False
        self.weather = weather
        self.happened: dict[tuple[str, str], float] = {}
        """When (loop time) the first entry of each type was stored, by deliberation and type."""
        self.holders: Counter[str] = Counter()
        """How often each deliberation was taken by somebody."""
        self._chance = chance
        self._note = note
        self._unheard: dict[int, Commit] = {}

    def note_fault(self) -> None:
        """Something went wrong."""
        self._note()

    async def write(self, process: SimulatedProcess, batch: Sequence[_Write]) -> Sequence[Any]:
        """The result or the error of each; all or none is stored. Raises `DependencyUnavailableError`."""
        self._refuse_the_gone(process)
        weather, draw = self.weather, self._chance.random()
        if self.is_away:
            await asyncio.sleep(self._chance.uniform(0.0, _PATIENCE_S))
            raise _away()
        if draw >= weather.slow + weather.failing + weather.unheard:
            return self._apply(batch)
        if draw < weather.slow:
            return await self._write_slowly(process, batch)
        self._note()
        if draw < weather.slow + weather.failing:
            raise _away()
        for write, result in zip(batch, self._apply(batch), strict=True):
            if write.commit is not None and not isinstance(result, Exception):
                self._unheard[id(write.commit)] = write.commit
        raise _away()

    async def _write_slowly(self, process: SimulatedProcess, batch: Sequence[_Write]) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Sequence[Any]] = loop.create_future()
        is_sent = self._chance.random() < 0.5

        def arrive() -> None:
            if self.is_away or (process.is_gone and not is_sent):
                if not reply.done():
                    reply.set_exception(_away())
                    # Its caller may be gone.
                    reply.exception()
                return
            results = self._apply(batch)
            if not reply.done():
                reply.set_result(results)

        in_no_process(loop.call_later, self._chance.choice((0.001, 0.02, 0.3, 1.5)), arrive)
        return await reply

    def _apply(self, batch: Sequence[_Write]) -> list[Any]:
        results: list[Any] = []
        for write in batch:
            if write.commit is not None and self._unheard.get(id(write.commit)) is write.commit:
                results.append(None)
                continue
            before = len(self.log.logged)
            try:
                results.append(immediately(write.act()))
            except Exception as error:  # noqa: BLE001 - it is that item's own, and given to it
                results.append(error)
            self._note_entries(before)
        return results

    def _note_entries(self, before: int) -> None:
        now = asyncio.get_running_loop().time()
        for logged in self.log.logged[before:]:
            kind = logged.entry.split(b'"type":"', 1)[1].split(b'"', 1)[0].decode()
            self.happened.setdefault((str(logged.deliberation_id), kind), now)

    async def read(self, process: SimulatedProcess, act: Coroutine[Any, Any, _T]) -> _T:
        """What a read gives. Raises `DependencyUnavailableError`."""
        try:
            self._refuse_the_gone(process)
            if self.is_away:
                await asyncio.sleep(self._chance.uniform(0.0, _PATIENCE_S))
                raise _away()
            if self.weather.unreadable and self._chance.random() < self.weather.unreadable:
                self._note()
                raise _away()
            return immediately(act)
        finally:
            act.close()

    def _refuse_the_gone(self, process: SimulatedProcess) -> None:
        if process.is_gone:
            raise asyncio.CancelledError


class StoreLink:
    """`DeliberationStore` of one process."""

    def __init__(self, store: SimulatedStore, process: SimulatedProcess) -> None:
        self._store = store
        self._process = process
        self._within = store.repository
        self._commits: GroupCommit[_Write, Any] = GroupCommit(self._write)

    async def close(self) -> None:
        """As that of the databases."""
        await self._commits.close()

    async def add(
        self,
        deliberation: Deliberation,
        accepted: Entry,
        *,
        lease: str | None = None,
        lease_s: float = 0.0,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        """As in `DeliberationRepository`."""

        async def act() -> None:
            await self._within.add(deliberation, accepted, lease=lease, lease_s=lease_s, idempotency=idempotency)
            if lease is not None:
                self._store.holders[deliberation.id] += 1

        await self._commits.submit(_Write(act))

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """As in `DeliberationRepository`."""
        span: WitnessSpan | None = await self._commits.submit(_Write(lambda: self._within.append(commit), commit))
        return span

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        """As in `Leases`."""

        async def act() -> Claim | None:
            claim = await self._within.claim(deliberation_id, lease=lease, lease_s=lease_s)
            if claim is not None:
                self._store.holders[deliberation_id] += 1
            return claim

        claim: Claim | None = await self._commits.submit(_Write(act))
        return claim

    async def renew(self, leases: Mapping[str, str], *, lease_s: float) -> Renewal:
        """As in `Leases`."""
        held = dict(leases)
        renewal: Renewal = await self._commits.submit(_Write(lambda: self._within.renew(held, lease_s=lease_s)))
        return renewal

    async def release(self, leases: Mapping[str, str]) -> None:
        """As in `Leases`."""
        held = dict(leases)
        await self._commits.submit(_Write(lambda: self._within.release(held)))

    async def release_process(self, process: str) -> int:
        """As in `Leases`."""
        released: int = await self._commits.submit(_Write(lambda: self._within.release_process(process)))
        return released

    async def request_cancel(self, deliberation_id: str) -> None:
        """As in `Leases`."""
        await self._commits.submit(_Write(lambda: self._within.request_cancel(deliberation_id)))

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """As in `DeliberationReader`."""
        return await self._store.read(self._process, self._within.get(deliberation_id))

    async def page(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> Page:
        """As in `DeliberationReader`."""
        reading = self._within.page(
            status=status, key_name=key_name, limit=limit, cursor=cursor, origin=origin, search=search
        )
        return await self._store.read(self._process, reading)

    async def count(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> int:
        """As in `DeliberationReader`."""
        reading = self._within.count(status=status, key_name=key_name, origin=origin, search=search)
        return await self._store.read(self._process, reading)

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        """As in `DeliberationReader`."""
        return await self._store.read(self._process, self._within.origins(since=since, key_name=key_name))

    async def stored(self, *, after: int, limit: int) -> Sequence[StoredDeliberation]:
        """As in `DeliberationReader`."""
        return await self._store.read(self._process, self._within.stored(after=after, limit=limit))

    async def records(
        self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
    ) -> Sequence[StoredRecord]:
        """As in `DeliberationReader`."""
        found = self._within.records(deliberation_id, round_number=round_number, after=after)
        return await self._store.read(self._process, found)

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """As in `DeliberationReader`."""
        return await self._store.read(self._process, self._within.events(deliberation_id, after=after, limit=limit))

    async def remembered(self, scope: str, key: str) -> RememberedKey | None:
        """As in `DeliberationReader`."""
        return await self._store.read(self._process, self._within.remembered(scope, key))

    async def waiting(self, *, limit: int, begun_only: bool = False) -> Sequence[Waiting]:
        """As in `Leases`."""
        return await self._store.read(self._process, self._within.waiting(limit=limit, begun_only=begun_only))

    async def _write(self, batch: Sequence[_Write]) -> Sequence[Any]:
        return await self._store.write(self._process, batch)


def immediately(act: Awaitable[_T]) -> _T:
    """What it gives; it must wait for nothing."""
    steps = act.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("the store in memory waited for something")


def _away() -> DependencyUnavailableError:
    return DependencyUnavailableError(dependency="database", problem="it is away")
