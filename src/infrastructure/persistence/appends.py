"""Writes what was added and appended, entries and state in one: numbers events and records, and keeps what ended closed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, bindparam, func, or_, select, tuple_, update

from application.ports.deliberation_repository import IdempotencyKey
from domain.errors.deliberation import (
    CallExistsError,
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    LeaseLostError,
    RecordExistsError,
)
from domain.models.deliberation import WitnessSpan
from domain.models.money import KeyBudget
from domain.models.spending import Movement
from infrastructure.persistence.bulk_insert import MOST_ROWS, BulkInsert
from infrastructure.persistence.catalogue import enter_outcome
from infrastructure.persistence.idempotency import remember
from infrastructure.persistence.leases import UNFINISHED, LeaseClock, holders
from infrastructure.persistence.rows import STANDING_COLUMNS, RowWriter
from infrastructure.persistence.sequencer import EncodedEntry, LogTail, Sequencer
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

__all__ = ["Addition", "AppendedEntry", "Appending", "Appends", "CallKey", "Numbers"]

# Made once, because making a statement takes longer than running it.
_LAST_POSITION = select(func.max(deliberations.c.position))
_CHANGE = (
    update(deliberations)
    .where(deliberations.c.id == bindparam("own"), or_(*(deliberations.c.status == status for status in UNFINISHED)))
    .values({name: bindparam(name) for name in STANDING_COLUMNS})
)
_STANDING = select(deliberations.c.status, deliberations.c.lease_owner).where(deliberations.c.id == bindparam("own"))
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


class CallKey(NamedTuple):
    """What one call is known by within its deliberation: no two have the same."""

    round_number: int
    agent_id: str
    purpose: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Addition:
    """A deliberation to be added: its columns but for position and lease, those of its specification, who holds it, its key, where its
    topic came from, and the columns of `catalogue` but for the position.
    """

    deliberation: Mapping[str, Any]
    specification: Mapping[str, Any]
    lease: str | None
    lease_s: float
    idempotency: IdempotencyKey | None = None
    origin: str | None = None
    catalogued: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendedEntry:
    """An entry beside the number of events that it makes, and the row of the agent that it is the end of, if it is one.

    `record` is round, agent, and the values of `agent_records` from `state` on but leaf index and salts. `call` is
    what the ledger knows an intended call by, `prompt_sha256` (hex) what it commits to, and `foreseen` the values of `calls` from `model`
    on. `charge` is the row of a call that is over, from `round_number` on, and `movements` are what both do to the budget of the key.
    """

    entry: EncodedEntry
    events: int
    record: tuple[int, str, tuple[Any, ...]] | None = None
    salts: bytes | None = None
    call: CallKey | None = None
    prompt_sha256: str | None = None
    foreseen: tuple[Any, ...] = ()
    charge: tuple[Any, ...] | None = None
    movements: Sequence[Movement] = ()


@dataclass(slots=True)
class Appending:
    """One call of `add` or `append` as rows that lack only their numbers.

    `standing` holds the columns of `deliberations` that change. `lease` is the one under which it has to be held. `doubtful` says
    that an earlier try of the same call may have been committed after all. `span` is set where the deliberation ends with it, and
    `came_out` is then how, as the catalogue has it: the outcome's status, and what the decision adds to the texts.
    """

    deliberation_id: str
    entries: Sequence[AppendedEntry]
    lease: str | None = None
    addition: Addition | None = None
    standing: Mapping[str, Any] | None = None
    doubtful: bool = False
    span: WitnessSpan | None = None
    came_out: tuple[str, str] | None = None

    def places(self) -> list[tuple[int, str]]:
        """The rounds and agents whose ends are among the entries."""
        return [(entry.record[0], entry.record[1]) for entry in self.entries if entry.record is not None]

    def calls(self) -> list[CallKey]:
        """The calls that are intended in the entries."""
        return [entry.call for entry in self.entries if entry.call is not None]


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
            if item.doubtful and self._is_stored(connection, item):
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
        self._refuse_repeated(connection, item)
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

    def _is_stored(self, connection: Connection, item: Appending) -> bool:
        first = next((appended.entry for appended in item.entries), None)
        own = item.deliberation_id
        if first is None:
            return False
        if first.data is None:
            # An end is stored with its deliberation, which ends once.
            status = connection.execute(select(deliberations.c.status).where(deliberations.c.id == own)).scalar()
            return status is not None and status == first.document["status"]
        same = select(witness_entries.c.idx).where(
            witness_entries.c.deliberation_id == own, witness_entries.c.leaf_hash == first.leaf
        )
        return connection.execute(same).first() is not None

    def _refuse_repeated(self, connection: Connection, item: Appending) -> None:
        """Raise the error that names what is already there, which the message of a database does not tell reliably."""
        own = item.deliberation_id
        if item.addition is not None:
            if connection.execute(select(deliberations.c.id).where(deliberations.c.id == own)).first() is not None:
                raise DeliberationExistsError(deliberation_id=own)
            return
        if item.doubtful and self._is_stored(connection, item):
            return
        self._refuse_closed(connection, item)
        self._refuse_repeated_calls(connection, item)
        places = item.places()
        if not places:
            return
        place = tuple_(agent_records.c.round_number, agent_records.c.agent_id)
        stored = select(agent_records.c.round_number, agent_records.c.agent_id).where(
            agent_records.c.deliberation_id == own, place.in_(places)
        )
        repeated = {(number, agent_id) for number, agent_id in connection.execute(stored)}
        for at, (round_number, agent_id) in enumerate(places):
            if (round_number, agent_id) in repeated or (round_number, agent_id) in places[:at]:
                raise RecordExistsError(deliberation_id=own, round_number=round_number, agent_id=agent_id)

    def _refuse_closed(self, connection: Connection, item: Appending) -> None:
        """What has ended, or is another's, says so first: what the other has stored since is no business of this one."""
        own = item.deliberation_id
        found = connection.execute(_STANDING, {"own": own}).first()
        if found is None:
            raise DeliberationNotFoundError(deliberation_id=own)
        if found.status not in UNFINISHED:
            raise DeliberationEndedError(deliberation_id=own, status=found.status)
        if item.lease is not None and found.lease_owner != item.lease:
            raise LeaseLostError(deliberation_id=own, lease=item.lease)

    def _refuse_repeated_calls(self, connection: Connection, item: Appending) -> None:
        intended = item.calls()
        if not intended:
            return
        key = tuple_(calls.c.round_number, calls.c.agent_id, calls.c.purpose, calls.c.attempt)
        question = select(calls.c.round_number, calls.c.agent_id, calls.c.purpose, calls.c.attempt)
        stored = question.where(
            calls.c.deliberation_id == item.deliberation_id, key.in_([tuple(each) for each in intended])
        )
        repeated = {CallKey(*row) for row in connection.execute(stored)}
        for at, each in enumerate(intended):
            if each in repeated or each in intended[:at]:
                raise CallExistsError(
                    deliberation_id=item.deliberation_id,
                    round_number=each.round_number,
                    agent_id=each.agent_id,
                    attempt=each.attempt,
                )
