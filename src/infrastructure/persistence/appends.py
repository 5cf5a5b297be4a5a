"""Writes what was added and appended, entries and state in one: numbers events and records, and keeps what ended closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, bindparam, func, or_, select, update

from domain.errors.deliberation import DeliberationEndedError, DeliberationNotFoundError, LeaseLostError
from domain.models.deliberation import WitnessSpan
from domain.models.money import KeyBudget
from domain.models.spending import Movement
from infrastructure.persistence.appending import Addition, Appending
from infrastructure.persistence.bulk_insert import MOST_ROWS, BulkInsert
from infrastructure.persistence.catalogue import enter_outcome
from infrastructure.persistence.idempotency import remember
from infrastructure.persistence.leases import UNFINISHED, LeaseClock, holders
from infrastructure.persistence.refusals import is_stored, refuse_repeated
from infrastructure.persistence.rows import STANDING_COLUMNS, RowWriter
from infrastructure.persistence.sequencer import LogTail, Sequencer
from infrastructure.persistence.spending import move
from infrastructure.persistence.tables import (
    agent_records,
    calls,
    catalogue,
    charges,
    deliberations,
    specifications,
    topics,
    witness_entries,
)

__all__ = ["Appends", "Numbers"]

# Made once, because making a statement takes longer than running it.
_LAST_POSITION = select(func.max(deliberations.c.position))
_CHANGE = (
    update(deliberations)
    .where(deliberations.c.id == bindparam("own"), or_(*(deliberations.c.status == status for status in UNFINISHED)))
    .values({name: bindparam(name) for name in STANDING_COLUMNS})
)
_FIRST_INDEX = select(deliberations.c.first_index).where(deliberations.c.id == bindparam("own"))
_WITNESSED = ("last_index", "tree_size", "root_hash")
_CHANGE_AND_LET_GO = _CHANGE.values(
    lease_owner=None, lease_until=None, **{name: bindparam(name) for name in _WITNESSED}
)


class Numbers(NamedTuple):
    """The last numbers that were given out in a deliberation: of its events, and of its records; and under which lease."""

    sequence: int
    ordinal: int
    lease: str | None = None


class Appends:
    """Writes appendings within a transaction of the caller, events numbered from 1 without gaps in each deliberation."""

    def __init__(
        self, dialect: Dialect, clock: LeaseClock, sequencer: Sequencer, budgets: Mapping[str, KeyBudget] | None = None
    ) -> None:
        """`budgets` are those of the API keys, by their names."""
        self._budgets = dict(budgets or {})
        self._is_postgres = dialect.name == "postgresql"
        self._clock = clock
        self._sequencer = sequencer
        self.tree_size = 0
        self._written = self._committed = b""
        self._rows = RowWriter(dialect)
        self._insert_deliberations = BulkInsert(deliberations, dialect)
        self._insert_specifications = BulkInsert(specifications, dialect)
        self._insert_records = BulkInsert(agent_records, dialect)
        self._insert_calls = BulkInsert(calls, dialect)
        self._insert_topics = BulkInsert(topics, dialect)
        self._insert_catalogue = BulkInsert(catalogue, dialect)
        self._insert_charges = BulkInsert(charges, dialect)

    def write(
        self, connection: Connection, items: Sequence[Appending], known: Mapping[str, Numbers]
    ) -> dict[str, Numbers]:
        """Write them all; returns the numbers that stand then. `known` saves reading them where nobody else has written since.

        Raises `IntegrityError`, or what `write_alone` raises, when one of the items cannot stand.
        """
        tail = self._sequencer.open(connection)
        held = self._held(connection, items)
        if tail.tree.to_bytes() != self._committed:
            # The right edge of the log is the same only where the log is, so another process has written meanwhile. To what is held
            # under the same lease as before it has not.
            known = {own: last for own, last in known.items() if last.lease is not None and last.lease == held.get(own)}
        numbers, ended = self._numbers(connection, items, known)
        record_rows: list[tuple[Any, ...]] = []
        call_rows: list[tuple[Any, ...]] = []
        charge_rows: list[tuple[Any, ...]] = []
        movements: list[Movement] = []
        added: list[tuple[Addition, int]] = []
        changed: list[tuple[Appending, Mapping[str, Any], int]] = []
        for item in items:
            if item.doubtful and is_stored(connection, item):
                continue
            deliberation_id = item.deliberation_id
            if deliberation_id in ended:
                raise DeliberationEndedError(deliberation_id=deliberation_id, status=ended[deliberation_id])
            if item.lease is not None and held.get(deliberation_id) != item.lease:
                raise LeaseLostError(deliberation_id=deliberation_id, lease=item.lease)
            sequence, ordinal, _ = numbers[deliberation_id]
            index = -1
            for appended in item.entries:
                sequence += appended.events
                index = tail.place(appended.entry, deliberation_id=deliberation_id, sequence=sequence)
                if appended.record is not None:
                    ordinal += 1
                    round_number, agent_id, values = appended.record
                    row = (
                        deliberation_id,
                        round_number,
                        agent_id,
                        ordinal,
                        *values[:-3],
                        index,
                        appended.salts,
                        *values[-3:],
                    )
                    record_rows.append(row)
                if appended.call is not None:
                    call_rows.append(
                        (deliberation_id, *appended.call, appended.prompt_sha256, index, *appended.foreseen)
                    )
                if appended.charge is not None:
                    charge_rows.append((deliberation_id, *appended.charge))
                movements += appended.movements
            lease = item.lease if item.addition is None else item.addition.lease
            numbers[deliberation_id] = Numbers(sequence, ordinal, lease)
            if item.addition is not None:
                added.append((item.addition, index))
            if item.standing is not None:
                changed.append((item, item.standing, index))
                if item.standing["status"] not in UNFINISHED:
                    ended[deliberation_id] = item.standing["status"]
        tail.close()
        self._add(connection, added)
        self._update(connection, changed, tail)
        self._insert_records(connection, record_rows)
        self._insert_calls(connection, call_rows)
        self._insert_charges(connection, charge_rows)
        if movements:
            move(connection, movements, self._budgets)
        # Last, because one of the items may turn out to be refused only by now.
        self.tree_size = tail.tree.size
        self._written = tail.tree.to_bytes()
        return {own: last for own, last in numbers.items() if own not in ended}

    def note_commit(self) -> None:
        """What was written last is committed."""
        self._committed = self._written

    def write_alone(self, connection: Connection, item: Appending) -> None:
        """Write this one. Raises `DeliberationExistsError`, `IdempotencyKeyTakenError`, `RecordExistsError`, `CallExistsError`,
        `LeaseLostError`, `DeliberationEndedError`, `DeliberationNotFoundError` and `BudgetExceededError`, or what the database refused.
        """
        refuse_repeated(connection, item)
        self.write(connection, [item], {})

    def lock(self, connection: Connection, deliberation_ids: Collection[str]) -> None:
        """On Postgres, keep other processes from writing to the same deliberations; SQLite has one writer anyway.

        The end of the log is locked first, then all rows in one order, and before anything is inserted: nobody waits in a circle.
        """
        if self._is_postgres and deliberation_ids:
            self._sequencer.open(connection)
            holders(connection, deliberation_ids, lock=True)

    def _held(self, connection: Connection, items: Sequence[Appending]) -> Mapping[str, str | None]:
        """Under which lease each of those is held that has to be held; nobody else can take it until the transaction ends."""
        if self._is_postgres:
            present = {item.deliberation_id for item in items if item.addition is None}
            return holders(connection, present, lock=True) if present else {}
        fenced = {item.deliberation_id for item in items if item.lease is not None}
        return holders(connection, fenced) if fenced else {}

    def _numbers(
        self, connection: Connection, items: Sequence[Appending], known: Mapping[str, Numbers]
    ) -> tuple[dict[str, Numbers], dict[str, str]]:
        """The last numbers of each deliberation, and the states of those that are seen to have ended."""
        numbers = {item.deliberation_id: Numbers(0, 0) for item in items if item.addition is not None}
        ended: dict[str, str] = {}
        unknown: dict[str, None] = {}
        for item in items:
            if item.deliberation_id in numbers:
                continue
            if item.deliberation_id in known:
                numbers[item.deliberation_id] = known[item.deliberation_id]
            else:
                unknown[item.deliberation_id] = None
        if not unknown:
            return numbers, ended
        own = deliberations.c.id
        question = select(
            own,
            deliberations.c.status,
            select(func.max(witness_entries.c.sequence))
            .where(witness_entries.c.deliberation_id == own)
            .scalar_subquery(),
            select(func.max(agent_records.c.ordinal)).where(agent_records.c.deliberation_id == own).scalar_subquery(),
        ).where(own.in_(unknown))
        for deliberation_id, status, sequence, ordinal in connection.execute(question):
            numbers[deliberation_id] = Numbers(sequence or 0, ordinal or 0)
            if status not in UNFINISHED:
                ended[deliberation_id] = status
        for deliberation_id in unknown:
            if deliberation_id not in numbers:
                raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        return numbers, ended

    def _add(self, connection: Connection, additions: Sequence[tuple[Addition, int]]) -> None:
        if not additions:
            return
        # The end of the log is locked, so nobody else gives out a position now.
        last, now = self._clock.beside(connection, _LAST_POSITION)
        found, specified, told, catalogued = [], [], [], []
        for position, (new, index) in enumerate(additions, (last or 0) + 1):
            until = None if new.lease is None else now + timedelta(seconds=new.lease_s)
            lease = {"lease_owner": new.lease, "lease_until": until}
            place = {"first_index": index, **dict.fromkeys(_WITNESSED)}
            found.append(self._rows.values(deliberations, {"position": position, **new.deliberation, **lease, **place}))
            specified.append(self._rows.values(specifications, new.specification))
            catalogued.append((position, *new.catalogued))
            if new.origin is not None:
                told.append((new.deliberation["id"], position, new.origin))
        if self._is_postgres and len(found) <= MOST_ROWS:
            together = self._insert_deliberations.as_change(found)
            self._insert_specifications(connection, specified, together_with=together)
        else:
            self._insert_deliberations(connection, found)
            self._insert_specifications(connection, specified)
        self._insert_catalogue(connection, catalogued)
        self._insert_topics(connection, told)
        named = {new.deliberation["id"]: new.idempotency for new, _ in additions if new.idempotency is not None}
        remember(connection, now, named)

    def _update(
        self, connection: Connection, changes: Sequence[tuple[Appending, Mapping[str, Any], int]], tail: LogTail
    ) -> None:
        for item, standing, index in changes:
            deliberation_id = item.deliberation_id
            values: dict[str, Any] = {"own": deliberation_id, **standing}
            if standing["status"] in UNFINISHED:
                changed = connection.execute(_CHANGE, values).rowcount
            else:
                size, root = tail.tree.size, tail.tree.root().hex()
                values |= {"last_index": index, "tree_size": size, "root_hash": root}
                changed = connection.execute(_CHANGE_AND_LET_GO, values).rowcount
                first = connection.execute(_FIRST_INDEX, {"own": deliberation_id}).scalar()
                item.span = None if first is None else WitnessSpan(first, index, size, root)
            if changed == 0:
                status = connection.execute(
                    select(deliberations.c.status).where(deliberations.c.id == deliberation_id)
                ).scalar()
                if status is None:
                    raise DeliberationNotFoundError(deliberation_id=deliberation_id)
                raise DeliberationEndedError(deliberation_id=deliberation_id, status=status)
            if item.came_out is not None:
                enter_outcome(connection, deliberation_id, *item.came_out)
