"""Writes what was added and appended: numbers the events and the records, and keeps ended deliberations closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, and_, bindparam, func, or_, select, tuple_, update

from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    RecordExistsError,
)
from infrastructure.persistence.bulk_insert import BulkInsert
from infrastructure.persistence.leases import UNFINISHED, LeaseClock
from infrastructure.persistence.rows import STANDING_COLUMNS, RowWriter
from infrastructure.persistence.tables import agent_records, deliberations, events, specifications

__all__ = ["Addition", "Appending", "Appends", "Numbers"]

# Holds the order of acceptance on Postgres; the number means nothing but must be the same in every process.
_ACCEPTANCE_LOCK = 7_226_072_001


# Made once, because making a statement takes longer than running it.
_LAST_POSITION = select(func.max(deliberations.c.position))
_CHANGE = (
    update(deliberations)
    .where(deliberations.c.id == bindparam("own"), or_(*(deliberations.c.status == status for status in UNFINISHED)))
    .values({name: bindparam(name) for name in STANDING_COLUMNS})
)
_CHANGE_AND_LET_GO = _CHANGE.values(lease_owner=None, lease_until=None)


class Numbers(NamedTuple):
    """The last numbers that were given out in a deliberation: of its events, and of its records."""

    sequence: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Addition:
    """A deliberation to be added: its columns but for position and lease, those of its specification, and who holds it."""

    deliberation: Mapping[str, Any]
    specification: Mapping[str, Any]
    owner: str
    lease_s: float


@dataclass(slots=True)
class Appending:
    """One call of `add` or `append` as rows that lack only their numbers.

    `standing` holds the columns of `deliberations` that change. `doubtful` says that an earlier try of the same call may have been
    committed after all.
    """

    deliberation_id: str
    events: list[tuple[str, Any, str]]
    records: list[tuple[int, str, tuple[Any, ...]]] = field(default_factory=list)
    addition: Addition | None = None
    standing: Mapping[str, Any] | None = None
    doubtful: bool = False


class Appends:
    """Writes appendings within a transaction of the caller, events numbered from 1 without gaps in each deliberation."""

    def __init__(self, dialect: Dialect, clock: LeaseClock) -> None:
        self._is_postgres = dialect.name == "postgresql"
        self._clock = clock
        self._rows = RowWriter(dialect)
        self._insert_deliberations = BulkInsert(deliberations, dialect)
        self._insert_specifications = BulkInsert(specifications, dialect)
        self._insert_events = BulkInsert(events, dialect)
        self._insert_records = BulkInsert(agent_records, dialect)

    def write(
        self, connection: Connection, items: Sequence[Appending], known: Mapping[str, Numbers]
    ) -> dict[str, Numbers]:
        """Write them all; returns the numbers that stand then. `known` saves reading them, and may be out of date.

        Raises `IntegrityError` when it was, or what `write_alone` raises, when one of the items cannot stand.
        """
        numbers, ended = self._numbers(connection, items, known)
        self._add(connection, [item.addition for item in items if item.addition is not None])
        event_rows: list[tuple[Any, ...]] = []
        record_rows: list[tuple[Any, ...]] = []
        for item in items:
            if item.doubtful and self._is_stored(connection, item):
                continue
            deliberation_id = item.deliberation_id
            if deliberation_id in ended:
                raise DeliberationEndedError(deliberation_id=deliberation_id, status=ended[deliberation_id])
            sequence, ordinal = numbers[deliberation_id]
            for event in item.events:
                sequence += 1
                event_rows.append((deliberation_id, sequence, *event))
            for round_number, agent_id, values in item.records:
                ordinal += 1
                record_rows.append((deliberation_id, round_number, agent_id, ordinal, *values))
            numbers[deliberation_id] = Numbers(sequence, ordinal)
            if item.standing is not None:
                self._update(connection, deliberation_id, item.standing)
                if item.standing["status"] not in UNFINISHED:
                    ended[deliberation_id] = item.standing["status"]
        self._insert_events(connection, event_rows)
        self._insert_records(connection, record_rows)
        return {own: last for own, last in numbers.items() if own not in ended}

    def write_alone(self, connection: Connection, item: Appending) -> None:
        """Write this one. Raises `DeliberationExistsError`, `RecordExistsError`, `DeliberationEndedError` and
        `DeliberationNotFoundError`, or what the database refused.
        """
        self._refuse_repeated(connection, item)
        self.write(connection, [item], {})

    def lock(self, connection: Connection, deliberation_ids: Collection[str]) -> None:
        """On Postgres, keep other processes from writing to the same deliberations; SQLite has one writer anyway.

        All rows are locked in one order and before anything is inserted, so nobody waits in a circle.
        """
        if self._is_postgres and deliberation_ids:
            ids = deliberations.c.id
            connection.execute(select(ids).where(ids.in_(list(deliberation_ids))).order_by(ids).with_for_update())

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
        self.lock(connection, {item.deliberation_id for item in items if item.addition is None})
        if not unknown:
            return numbers, ended
        own = deliberations.c.id
        question = select(
            own,
            deliberations.c.status,
            select(func.max(events.c.sequence)).where(events.c.deliberation_id == own).scalar_subquery(),
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

    def _add(self, connection: Connection, additions: Sequence[Addition]) -> None:
        if not additions:
            return
        if self._is_postgres:
            connection.execute(select(func.pg_advisory_xact_lock(_ACCEPTANCE_LOCK)))
        last = connection.execute(_LAST_POSITION).scalar() or 0
        now = self._clock.now(connection)
        found, specified = [], []
        for position, new in enumerate(additions, last + 1):
            lease = {"lease_owner": new.owner, "lease_until": now + timedelta(seconds=new.lease_s)}
            found.append(self._rows.values(deliberations, {"position": position, **new.deliberation, **lease}))
            specified.append(self._rows.values(specifications, new.specification))
        self._insert_deliberations(connection, found)
        self._insert_specifications(connection, specified)

    def _update(self, connection: Connection, deliberation_id: str, standing: Mapping[str, Any]) -> None:
        change = _CHANGE if standing["status"] in UNFINISHED else _CHANGE_AND_LET_GO
        if connection.execute(change, {"own": deliberation_id, **standing}).rowcount == 0:
            own = deliberations.c.id == deliberation_id
            status = connection.execute(select(deliberations.c.status).where(own)).scalar()
            if status is None:
                raise DeliberationNotFoundError(deliberation_id=deliberation_id)
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=status)

    def _is_stored(self, connection: Connection, item: Appending) -> bool:
        if item.events:
            kind, at, data = item.events[0]
            found = connection.exec_driver_sql(_SAME_EVENT[self._is_postgres], (item.deliberation_id, kind, at, data))
        elif item.records:
            round_number, agent_id, _ = item.records[0]
            place = and_(
                agent_records.c.deliberation_id == item.deliberation_id,
                agent_records.c.round_number == round_number,
                agent_records.c.agent_id == agent_id,
            )
            found = connection.execute(select(agent_records.c.ordinal).where(place))
        else:
            return False
        return found.first() is not None

    def _refuse_repeated(self, connection: Connection, item: Appending) -> None:
        """Raise the error that names what is already there, which the message of a database does not tell reliably."""
        own = item.deliberation_id
        if item.addition is not None:
            if connection.execute(select(deliberations.c.id).where(deliberations.c.id == own)).first() is not None:
                raise DeliberationExistsError(deliberation_id=own)
            return
        if not item.records or (item.doubtful and self._is_stored(connection, item)):
            return
        places = [(round_number, agent_id) for round_number, agent_id, _ in item.records]
        place = tuple_(agent_records.c.round_number, agent_records.c.agent_id)
        stored = select(agent_records.c.round_number, agent_records.c.agent_id).where(
            agent_records.c.deliberation_id == own, place.in_(places)
        )
        repeated = {(number, agent_id) for number, agent_id in connection.execute(stored)}
        for at, (round_number, agent_id) in enumerate(places):
            if (round_number, agent_id) in repeated or (round_number, agent_id) in places[:at]:
                raise RecordExistsError(deliberation_id=own, round_number=round_number, agent_id=agent_id)


_SAME_EVENT = {
    False: "SELECT 1 FROM events WHERE deliberation_id = ? AND type = ? AND at = ? AND data = ?",
    True: "SELECT 1 FROM events WHERE deliberation_id = %s AND type = %s AND at = %s AND data = %s",
}
