"""Keeps runs in this process alone, for tests and for a service that has no folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from application.ports.idempotency import REMEMBERED_FOR, IdempotencyKey
from application.ports.run_registry import RememberedRun, RunPage, Unwanted
from domain.errors.deliberation import InvalidSpecificationError
from domain.errors.run import RunEndedError, RunKeyTakenError, RunNotFoundError, RunTakenError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, Run
from domain.models.run_event import RunEvent, is_run_id, may_be_noted, run_event_type, was_begun_before

__all__ = ["InMemoryRunRegistry"]

_DIED = "its process ended before its work did"
_MAX_EVENTS = 100_000


class InMemoryRunRegistry:
    """A `RunRegistry` whose runs live while somebody holds them. May be used from any thread."""

    def __init__(self, *, keep: int = 1_000, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.turn = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.told: dict[str, list[RunEvent]] = {}
        self.counts: dict[str, dict[str, BusStats]] = {}
        self.tallies: dict[str, PopulationCounts] = {}
        self.launchers: set[str] = set()
        self.processes: set[str] = set()
        self.unwanted: dict[str, Unwanted] = {}
        self.keys: dict[str, IdempotencyKey] = {}
        self._keep = keep
        self.now = now

    def register(self, run: Run) -> _Record:
        """As in `RunRegistry`."""
        with self.turn:
            self._add(replace(run, status=DeliberationStatus.RUNNING))
            return _Record(self, run.id, launched=False)

    def announce(self, run: Run, *, idempotency: IdempotencyKey | None = None) -> _Announcement:
        """As in `RunRegistry`."""
        with self.turn:
            if idempotency is not None:
                taken = self.remembered(idempotency)
                if taken is not None:
                    raise RunKeyTakenError(run_id=taken.run_id, body_sha256=taken.body_sha256)
                self.keys[run.id] = idempotency
            self._add(replace(run, status=DeliberationStatus.QUEUED, started_at=None))
            self.launchers.add(run.id)
            return _Announcement(self, run.id)

    def remembered(self, idempotency: IdempotencyKey) -> RememberedRun | None:
        """As in `RunRegistry`."""
        oldest = self.now() - REMEMBERED_FOR
        with self.turn:
            for run_id, named in self.keys.items():
                is_same = (named.scope, named.key) == (idempotency.scope, idempotency.key)
                if is_same and run_id in self.runs and not was_begun_before(run_id, oldest):
                    return RememberedRun(run_id, named.body_sha256)
        return None

    def forget_key(self, run_id: str) -> None:
        """As in `RunRegistry`."""
        with self.turn:
            self.keys.pop(run_id, None)

    def take_over(self, run_id: str, *, at: datetime) -> _Record:
        """As in `RunRegistry`."""
        with self.turn:
            run = self._stored(run_id)
            if run.status is not DeliberationStatus.QUEUED:
                raise RunTakenError(run_id=run_id, status=run.status.value)
            self.runs[run_id] = replace(run, status=DeliberationStatus.RUNNING, started_at=at)
            return _Record(self, run_id, launched=True)

    def get(self, run_id: str) -> Run:
        """As in `RunReader`."""
        with self.turn:
            run = self._stored(run_id)
            if run.status.is_terminal or run_id in self.launchers | self.processes:
                return run
            return self.finish(run_id, DeliberationStatus.FAILED, at=self.now(), reason=_DIED)

    def page(
        self,
        *,
        status: DeliberationStatus | None = None,
        key_name: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> RunPage:
        """As in `RunReader`."""
        if cursor is not None and not is_run_id(cursor):
            raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")
        with self.turn:
            runs = [self.get(run_id) for run_id in sorted(self.runs, reverse=True)]
        found = [
            run
            for run in runs
            if (cursor is None or run.id < cursor) and status in {None, run.status} and key_name in {None, run.key_name}
        ]
        return RunPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[RunEvent]:
        """As in `RunReader`."""
        with self.turn:
            self._stored(run_id)
            return self.told[run_id][after : after + limit]

    def request_end(self, run_id: str, why: Unwanted = Unwanted.CANCELLED) -> Run:
        """As in `RunRegistry`."""
        with self.turn:
            run = self.get(run_id)
            if run.status.is_terminal:
                raise RunEndedError(run_id=run_id, status=run.status.value)
            self.unwanted.setdefault(run_id, why)
            return run

    def settle(self, run_id: str, status: DeliberationStatus, *, reason: str) -> Run:
        """As in `RunRegistry`."""
        with self.turn:
            run = self._stored(run_id)
            if run.status.is_terminal or run_id in self.processes:
                return run
            return self.finish(run_id, status, at=self.now(), reason=reason)

    def tell(self, run_id: str, type: str, data: Mapping[str, JsonValue], *, at: datetime) -> bool:  # noqa: A002
        """Write one event, unless there is no room."""
        with self.turn:
            told = self.told[run_id]
            if len(told) >= _MAX_EVENTS and not type.startswith("run."):
                return False
            told.append(RunEvent(run_id, len(told) + 1, type, at, dict(data)))
            return True

    def finish(
        self,
        run_id: str,
        status: DeliberationStatus,
        *,
        at: datetime,
        result: Mapping[str, JsonValue] | None = None,
        reason: str | None = None,
        lost: int = 0,
    ) -> Run:
        """Write the last event and the run as it ended."""
        with self.turn:
            run = replace(self.runs[run_id], status=status, finished_at=at, result=result, reason=reason)
            self.runs[run_id] = run
            data: dict[str, JsonValue] = {} if reason is None else {"reason": reason}
            self.tell(run_id, run_event_type(status), {**data, **({"events_lost": lost} if lost else {})}, at=at)
            return run

    def _add(self, run: Run) -> None:
        if not is_run_id(run.id):
            raise ValueError(f"{run.id!r} is no id of a run")
        surplus = len(self.runs) - self._keep + 1
        for run_id in sorted(self.runs):
            if surplus <= 0:
                break
            if self.get(run_id).status.is_terminal:
                del self.runs[run_id], self.told[run_id]
                surplus -= 1
        self.runs[run.id] = run
        self.told[run.id] = []

    def _stored(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise RunNotFoundError(run_id=run_id)
        return self.runs[run_id]


class _Announcement:
    def __init__(self, registry: InMemoryRunRegistry, run_id: str) -> None:
        self._registry = registry
        self._run_id = run_id

    def close(self) -> None:
        with self._registry.turn:
            self._registry.launchers.discard(self._run_id)


class _Record:
    def __init__(self, registry: InMemoryRunRegistry, run_id: str, *, launched: bool) -> None:
        self._registry = registry
        self._launched = launched
        self._lost = 0
        self.id = run_id
        registry.processes.add(run_id)
        registry.tell(run_id, run_event_type(DeliberationStatus.RUNNING), {}, at=registry.now())

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        with self._registry.turn:
            if self.id not in self._registry.processes or self._registry.runs[self.id].status.is_terminal:
                return
            told = may_be_noted(type) and self._registry.tell(self.id, type, data, at=self._registry.now())
            self._lost += not told

    def count(self, stats: BusStats) -> None:
        with self._registry.turn:
            self._registry.counts.setdefault(self.id, {})[stats.transport] = stats

    def tally(self, counts: PopulationCounts) -> None:
        with self._registry.turn:
            self._registry.tallies[self.id] = counts.copy()

    def unwanted(self) -> Unwanted | None:
        with self._registry.turn:
            if self.id in self._registry.unwanted:
                return self._registry.unwanted[self.id]
            orphaned = self._launched and self.id not in self._registry.launchers
            return Unwanted.ORPHANED if orphaned else None

    def end(
        self,
        status: DeliberationStatus,
        *,
        at: datetime,
        result: Mapping[str, JsonValue] | None = None,
        reason: str | None = None,
    ) -> Sequence[str]:
        with self._registry.turn:
            if not self._registry.runs[self.id].status.is_terminal:
                self._registry.finish(self.id, status, at=at, result=result, reason=reason, lost=self._lost)
        return [f"{self._lost} of its events could not be recorded"] if self._lost else []

    def close(self) -> None:
        with self._registry.turn:
            self._registry.processes.discard(self.id)
