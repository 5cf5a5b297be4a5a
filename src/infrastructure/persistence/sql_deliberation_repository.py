"""Stores deliberations in SQLite or Postgres, and says which process works on which."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, select

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import (
    CallKey,
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
from application.ports.metrics import Metrics, NullMetrics
from application.services.continuation import held_in
from domain.errors.deliberation import RecordMismatchError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.event import Event
from domain.models.money import KeyBudget
from domain.models.search import Search
from domain.models.spending import Movement
from domain.page_cursor import position_of
from domain.witness.entry import Entry
from domain.witness.happenings import event_count
from infrastructure.persistence import leases
from infrastructure.persistence.appending import Addition, AppendedEntry, Appending
from infrastructure.persistence.appends import Appends, Numbers
from infrastructure.persistence.catalogue import catalogue_values, count_found, outcome_values
from infrastructure.persistence.database import Database
from infrastructure.persistence.documents import is_storable
from infrastructure.persistence.failures import is_conflict, unavailability
from infrastructure.persistence.group_commit import GroupCommit
from infrastructure.persistence.idempotency import find as find_remembered
from infrastructure.persistence.ledger import charge_values, read_charges, read_ledger
from infrastructure.persistence.reads import Readings, read_events, read_origins, read_records
from infrastructure.persistence.room import refuse_read_only, try_to_write
from infrastructure.persistence.rows import (
    RosterTexts,
    RowWriter,
    new_values,
    specification_values,
    standing_values,
)
from infrastructure.persistence.sequencer import EncodedEntry, Sequencer
from infrastructure.persistence.tables import witness_head

__all__ = ["SqlDeliberationRepository"]

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)
_MAX_KNOWN = 10_000
_MAX_SEQUENCE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Sharing:
    """A change of leases, to be made in the transaction of a batch."""

    work: Callable[[Connection], Any]


class SqlDeliberationRepository:
    """`DeliberationRepository`, `DeliberationReader` and `Leases` over one database, SQLite or Postgres.

    All writes of a process share one queue, so that those that end close together share a commit. A `Commit` that is appended again
    after `DependencyUnavailableError` is stored once, even when the first try was committed and only the news of it was lost.
    Texts that no database takes (NUL, lone surrogates) raise `ValueError`; the domain cleans them away before. What has ended
    takes no more: `DeliberationEndedError`. Belongs to one event loop; `close` it before the database.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
        budgets: Mapping[str, KeyBudget] | None = None,
    ) -> None:
        """`clock` times the leases; without one Postgres does, and on SQLite, where all processes share a machine, its clock.

        `budgets` are those of the API keys by their names, "*" for everybody without one.
        """
        if clock is None and database.dialect.name == "sqlite":
            clock = SystemClock()
        self._database = database
        self._metrics = metrics if metrics is not None else NullMetrics()
        self.tree_size = 0
        self._clock = leases.LeaseClock(clock)
        self._rows = RowWriter(database.dialect)
        self._appends = Appends(database.dialect, self._clock, Sequencer(database.dialect), budgets)
        self._rosters = RosterTexts()
        self._readings = Readings()
        self._commits: GroupCommit[Appending | _Sharing, Any] = GroupCommit(self._write)
        self._known: dict[str, Numbers] = {}
        self._doubtful: dict[int, Commit] = {}
        # Whether the last write failed for a reason of the database's own.
        self._has_failed = False

    async def close(self) -> None:
        """Return once every write that was begun is durable or refused; later ones are refused."""
        await self._commits.close()

    async def check(self) -> None:
        """Return if the database can be read and written now. Raises `DependencyUnavailableError`.

        Writes nothing, unless the last write failed: then one is tried, and taken back.
        """
        await self._database.read(lambda connection: connection.execute(select(witness_head.c.tree_size)).first())
        await self._share(refuse_read_only)
        if self._has_failed:
            await try_to_write(self._database)
            self._has_failed = False

    async def add(
        self,
        deliberation: Deliberation,
        accepted: Entry,
        *,
        lease: str | None = None,
        lease_s: float = 0.0,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        """As in `DeliberationRepository`. Raises `DeliberationExistsError` for an id that is already there."""
        addition = Addition(
            new_values(deliberation),
            specification_values(deliberation, self._rosters, accepted.salts),
            lease=lease,
            lease_s=lease_s,
            idempotency=idempotency,
            origin=deliberation.specification.topic_origin,
            catalogued=catalogue_values(deliberation),
        )
        await self._commits.submit(Appending(deliberation.id, [self._appended(accepted)], addition=addition))

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """As in `DeliberationRepository`. Raises `RecordExistsError`, `CallExistsError`, `LeaseLostError`, `DeliberationEndedError`,
        `DeliberationNotFoundError` and `BudgetExceededError`.
        """
        item = Appending(
            commit.deliberation_id,
            [self._appended(entry) for entry in commit.entries],
            lease=commit.lease,
            standing=None if commit.deliberation is None else standing_values(commit.deliberation),
            doubtful=self._doubtful.pop(id(commit), None) is not None,
            came_out=None if commit.deliberation is None else outcome_values(commit.deliberation),
        )
        try:
            span: WitnessSpan | None = await self._commits.submit(item)
        except DependencyUnavailableError:
            if len(self._doubtful) < _MAX_KNOWN:
                self._doubtful[id(commit)] = commit
            raise
        return span

    def _appended(self, entry: Entry) -> AppendedEntry:
        encoded, events = EncodedEntry.of(entry.document), event_count(entry.document)
        record, document = entry.record, entry.document
        movements = Movement.of(entry.reservation, entry.charge)
        charged = None if entry.charge is None else charge_values(entry.charge, document)
        if record is None and document["type"] != "call.intended":
            return AppendedEntry(encoded, events, charge=charged, movements=movements)
        if record is None:
            prompt, reserved = document["prompt"], entry.reservation
            hold = held_in(document) if reserved is None else reserved.hold
            return AppendedEntry(
                encoded,
                events,
                call=CallKey.of(document),
                prompt_sha256=None if prompt is None else prompt["sha256"],
                foreseen=(document["model"], document["at"][:10], hold.tokens, hold.cost),
                charge=charged,
                movements=movements,
            )
        row = (record.round_number, record.agent_id, self._rows.record(record))
        return AppendedEntry(encoded, events, row, entry.salts, charge=charged, movements=movements)

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """As in `DeliberationReader`; the rounds of one at work are made of what is committed so far."""
        if not is_storable(deliberation_id):
            return None
        return await self._compared(lambda connection: self._readings.one(connection, deliberation_id))

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
        """As in `DeliberationReader`; without rounds, and failures without the agents' texts."""
        before = None if cursor is None else position_of(cursor)
        return await self._compared(
            lambda connection: self._readings.page(
                connection, status=status, key_name=key_name, limit=limit, before=before, origin=origin, search=search
            )
        )

    async def count(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> int:
        """As in `DeliberationReader`."""
        return await self._database.read(
            lambda connection: count_found(connection, status=status, key_name=key_name, origin=origin, search=search)
        )

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        """As in `DeliberationReader`."""
        return await self._database.read(lambda connection: read_origins(connection, since=since, key_name=key_name))

    async def stored(self, *, after: int, limit: int) -> Sequence[StoredDeliberation]:
        """As in `DeliberationReader`."""
        return await self._database.read(lambda connection: self._readings.stored(connection, after=after, limit=limit))

    async def records(
        self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
    ) -> Sequence[StoredRecord]:
        """As in `DeliberationReader`."""
        if not is_storable(deliberation_id):
            return []
        return await self._database.read(
            lambda connection: read_records(connection, deliberation_id, round_number=round_number, after=after)
        )

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """As in `DeliberationReader`."""
        if not is_storable(deliberation_id) or after >= _MAX_SEQUENCE:
            return []
        return await self._database.read(
            lambda connection: read_events(connection, deliberation_id, after=max(after, 0), limit=limit)
        )

    async def remembered(self, scope: str, key: str) -> RememberedKey | None:
        """As in `DeliberationReader`."""
        if not (is_storable(scope) and is_storable(key)):
            return None
        return await self._database.read(
            lambda connection: find_remembered(connection, self._clock, scope=scope, key=key)
        )

    async def waiting(self, *, limit: int, begun_only: bool = False) -> Sequence[Waiting]:
        """As in `Leases`."""
        return await self._database.read(
            lambda connection: leases.waiting(connection, self._clock, limit=limit, begun_only=begun_only)
        )

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        """As in `Leases`. Raises `RecordMismatchError` where what is stored is not what was recorded; it is held all the same."""
        if not is_storable(deliberation_id):
            return None
        taken: bool = await self._share(
            lambda connection: leases.claim(connection, self._clock, deliberation_id, lease=lease, lease_s=lease_s)
        )
        if not taken:
            return None
        return await self._compared(lambda connection: self._claimed(connection, deliberation_id, lease))

    def _claimed(self, connection: Connection, deliberation_id: str, lease: str) -> Claim | None:
        stored = self._readings.whole(connection, deliberation_id)
        if stored is None:
            return None
        ledger, charges = read_ledger(connection, deliberation_id), read_charges(connection, [deliberation_id])
        return Claim(
            stored.deliberation, lease, stored.records, ledger, stored.entries, charges.get(deliberation_id, ())
        )

    async def renew(self, held: Mapping[str, str], *, lease_s: float) -> Renewal:
        """As in `Leases`; what another has claimed meanwhile stays with the other."""
        renewal: Renewal = await self._share(
            lambda connection: leases.renew(connection, self._clock, held, lease_s=lease_s)
        )
        return renewal

    async def release(self, held: Mapping[str, str]) -> None:
        """As in `Leases`."""
        await self._share(lambda connection: leases.release(connection, held))

    async def release_process(self, process: str) -> int:
        """As in `Leases`."""
        released: int = await self._share(lambda connection: leases.release_process(connection, process))
        return released

    async def request_cancel(self, deliberation_id: str) -> None:
        """As in `Leases`. Raises `DeliberationNotFoundError`, and `DeliberationEndedError` when it is too late."""
        await self._share(lambda connection: leases.request_cancel(connection, deliberation_id))

    async def _compared(self, work: Callable[[Connection], _T]) -> _T:
        try:
            return await self._database.read(work)
        except RecordMismatchError:
            self._metrics.record_mismatched()
            raise

    async def _share(self, work: Callable[[Connection], Any]) -> Any:
        return await self._commits.submit(_Sharing(work))

    async def _write(self, batch: Sequence[Appending | _Sharing]) -> Sequence[Any]:
        """As `_written`, and note whether the database takes writes. What changes leases may write nothing, so it proves nothing."""
        try:
            results = await self._written(batch)
        except DependencyUnavailableError:
            self._has_failed = True
            raise
        if any(isinstance(item, Appending) for item in batch):
            self._has_failed = False
        return results

    async def _written(self, batch: Sequence[Appending | _Sharing]) -> Sequence[Any]:
        """Write a batch in one transaction; when that cannot stand, in one in which each item stands or falls alone."""
        appendings = [item for item in batch if isinstance(item, Appending)]
        ids = {item.deliberation_id for item in appendings}
        known = {own: self._known.pop(own) for own in ids if own in self._known}
        began = time.perf_counter()
        try:
            results, numbers = await self._database.write(lambda connection: self._together(connection, batch, known))
        except DependencyUnavailableError as error:
            if not is_conflict(error.__cause__):
                raise
        except Exception as error:  # noqa: BLE001 - whatever one item did wrong must not fail its neighbours
            _logger.debug("a batch of %d writes is repeated one by one: %s", len(batch), type(error).__name__)
        else:
            if len(self._known) > _MAX_KNOWN:
                self._known.clear()
            self._known |= numbers
            self._note_append(appendings, began)
            return results
        results = await self._database.write(lambda connection: self._one_by_one(connection, batch))
        self._note_append(appendings, began)
        return results

    def _note_append(self, appendings: Sequence[Appending], began: float) -> None:
        if appendings:
            self._appends.note_commit()
            self.tree_size = self._appends.tree_size
            self._metrics.log_appended(time.perf_counter() - began)

    def _together(
        self, connection: Connection, batch: Sequence[Appending | _Sharing], known: Mapping[str, Numbers]
    ) -> tuple[list[Any], dict[str, Numbers]]:
        appendings = [item for item in batch if isinstance(item, Appending)]
        numbers = self._appends.write(connection, appendings, known) if appendings else {}
        return [item.work(connection) if isinstance(item, _Sharing) else item.span for item in batch], numbers

    def _one_by_one(self, connection: Connection, batch: Sequence[Appending | _Sharing]) -> list[Any]:
        self._appends.lock(connection, {item.deliberation_id for item in batch if isinstance(item, Appending)})
        results: list[Any] = []
        for item in batch:
            try:
                with connection.begin_nested():
                    result = self._alone(connection, item)
            except Exception as error:
                if unavailability(error) is not None or isinstance(error, DependencyUnavailableError):
                    raise
                results.append(error)
            else:
                results.append(result)
        return results

    def _alone(self, connection: Connection, item: Appending | _Sharing) -> Any:
        if isinstance(item, _Sharing):
            return item.work(connection)
        self._appends.write_alone(connection, item)
        return item.span
