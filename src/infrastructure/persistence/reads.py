"""Reads deliberations, records and events within a transaction of the caller, and shows no deliberation that differs from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, select

from application.ports.deliberation_repository import Page, StoredDeliberation, StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.record_check import require_recorded
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.event import Event
from domain.models.search import Search
from domain.page_cursor import cursor_of
from infrastructure.persistence.catalogue import found_positions
from infrastructure.persistence.documents import is_storable
from infrastructure.persistence.glances import Glances
from infrastructure.persistence.ledger import read_charges, read_ledgers
from infrastructure.persistence.roots import roots_at
from infrastructure.persistence.rows import (
    DELIBERATION_COLUMNS,
    ENTRY_COLUMNS,
    RECORD_COLUMNS,
    RosterTexts,
    deliberation_of,
    entry_of,
    events_of_entry,
    record_of,
)
from infrastructure.persistence.standing import as_it_stands, shown_on_a_page
from infrastructure.persistence.tables import agent_records, deliberations, specifications, topics, witness_entries
from infrastructure.persistence.unreadable import UNREADABLE, readable
from infrastructure.witness.canonical_json import read_json

__all__ = ["Readings", "read_events", "read_one", "read_origins", "read_records"]

# Of large deliberations, a megabyte at most.
_TOGETHER = 20
_COUNTED_TOPICS = 10_000

# Made once, because making a statement takes longer than running it.
_EVERY = select(*DELIBERATION_COLUMNS).join(specifications)
_ONE = _EVERY.where(deliberations.c.id == bindparam("own"))
_NEXT = (
    _EVERY.where(deliberations.c.position > bindparam("after"))
    .order_by(deliberations.c.position)
    .limit(bindparam("most"))
)
_RECORDS = (
    select(*RECORD_COLUMNS).where(agent_records.c.deliberation_id == bindparam("own")).order_by(agent_records.c.ordinal)
)
_WITNESSED = (
    select(*ENTRY_COLUMNS, agent_records.c.salts, *RECORD_COLUMNS)
    .outerjoin(witness_entries, witness_entries.c.idx == agent_records.c.leaf_index)
    .where(agent_records.c.deliberation_id == bindparam("own"))
    .order_by(agent_records.c.ordinal)
)
_WITNESSED_OF_ROUND = _WITNESSED.where(agent_records.c.round_number == bindparam("round"))
_WITNESSED_AFTER = _WITNESSED.where(agent_records.c.leaf_index > bindparam("after"))
_WITNESSED_OF_ROUND_AFTER = _WITNESSED_OF_ROUND.where(agent_records.c.leaf_index > bindparam("after"))
_THEIR_ENTRIES = (
    select(*ENTRY_COLUMNS)
    .where(witness_entries.c.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(witness_entries.c.idx)
)
_THEIR_RECORDS = (
    select(agent_records.c.deliberation_id, agent_records.c.leaf_index, agent_records.c.salts, *RECORD_COLUMNS)
    .where(agent_records.c.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(agent_records.c.deliberation_id, agent_records.c.ordinal)
)
_EVENTS = (
    select(witness_entries.c.sequence, witness_entries.c.entry)
    .where(witness_entries.c.deliberation_id == bindparam("own"), witness_entries.c.sequence > bindparam("after"))
    .order_by(witness_entries.c.sequence, witness_entries.c.idx)
    .limit(bindparam("most"))
)


class Readings:
    """Reads deliberations and compares them with their entries. Belongs to one database; may be used by several threads."""

    def __init__(self) -> None:
        self._rosters = RosterTexts()
        self._glances = Glances(self._rosters)

    def one(self, connection: Connection, deliberation_id: str) -> Deliberation | None:
        """The deliberation, with rounds made of what is committed, or None. Raises `RecordMismatchError`."""
        stored = self.whole(connection, deliberation_id)
        return None if stored is None else stored.deliberation

    def whole(self, connection: Connection, deliberation_id: str) -> StoredDeliberation | None:
        """All that is stored of the deliberation, or None. Raises `RecordMismatchError`."""
        rows = _rows(connection, _ONE, {"own": deliberation_id})
        if not rows:
            return None
        (stored,) = self._stored(connection, rows)
        require_recorded(stored, read_json=read_json)
        return stored

    def page(
        self,
        connection: Connection,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        limit: int,
        before: int | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> Page:
        """Deliberations of a lower position than `before`, newest first, without rounds and without any text of an agent.

        Raises `RecordMismatchError` where one of them differs from its record, or is not what `search` asks for.
        """
        question = _EVERY.order_by(deliberations.c.position.desc()).limit(limit + 1)
        if status is not None:
            question = question.where(deliberations.c.status == status.value)
        if key_name is not None:
            question = question.where(deliberations.c.key_name == key_name)
        if before is not None:
            question = question.where(deliberations.c.position < before)
        if origin is not None:
            if not is_storable(origin):
                return Page((), None)
            question = question.join(topics, topics.c.deliberation_id == deliberations.c.id).where(
                topics.c.origin == origin
            )
        if search is not None and not search.keeps_all:
            positions = found_positions(
                connection,
                status=status,
                key_name=key_name,
                origin=origin,
                search=search,
                before=before,
                limit=limit + 1,
            )
            question = question.where(deliberations.c.position.in_(positions))
        rows = _rows(connection, question, {})
        shown = rows[:limit]
        found = dict(self._glances.read(connection, [row for row in shown if row.result is not None]))
        unfinished = [row for row in shown if row.result is None]
        for start in range(0, len(unfinished), _TOGETHER):
            for stored in self._stored(connection, unfinished[start : start + _TOGETHER]):
                require_recorded(stored, read_json=read_json)
                found[stored.deliberation.id] = stored.at_a_glance
        items = tuple(found[row.id] for row in shown)
        if origin is not None:
            _require_origin(items, origin)
        if search is not None:
            _require_matches(items, search)
        return Page(items, cursor_of(rows[limit - 1].position) if len(rows) > limit else None)

    def stored(self, connection: Connection, *, after: int, limit: int) -> list[StoredDeliberation]:
        """The next ones after that position, ascending, with their ledgers, not compared.

        Raises `RecordMismatchError` for what cannot be read.
        """
        found = self._stored(connection, _rows(connection, _NEXT, {"after": after, "most": limit}))
        ids = [each.deliberation.id for each in found]
        ledgers, charges = read_ledgers(connection, ids), read_charges(connection, ids)
        return [
            replace(each, calls=ledgers[own], charges=charges.get(own, ()))
            for own, each in zip(ids, found, strict=True)
        ]

    def _stored(self, connection: Connection, rows: Sequence[Row[Any]]) -> list[StoredDeliberation]:
        if not rows:
            return []
        these = {"these": [row.id for row in rows]}
        entries: dict[str, dict[int, LoggedEntry]] = {}
        for entry in map(entry_of, connection.execute(_THEIR_ENTRIES, these).all()):
            entries.setdefault(str(entry.deliberation_id), {})[entry.index] = entry
        records: dict[str, list[Sequence[Any]]] = {}
        values: Sequence[Any]
        for deliberation_id, *values in self._record_rows(connection, rows):
            records.setdefault(deliberation_id, []).append(values)
        roots = roots_at(connection, [row.tree_size for row in rows if row.result is not None])
        return [
            readable(row.id, partial(self._assembled, row, records.get(row.id, ()), entries.get(row.id, {}), roots))
            for row in rows
        ]

    def _record_rows(self, connection: Connection, rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
        try:
            return connection.execute(_THEIR_RECORDS, {"these": [row.id for row in rows]}).all()
        except UNREADABLE:
            if len(rows) == 1:
                return readable(rows[0].id, partial(_rows_of_records, connection, rows[0].id))
            # One by one, so that the one which cannot be read is named.
            return [each for row in rows for each in self._record_rows(connection, [row])]

    def _assembled(
        self,
        row: Row[Any],
        their_records: Sequence[Sequence[Any]],
        entries: Mapping[int, LoggedEntry],
        roots: Mapping[int, str],
    ) -> StoredDeliberation:
        found, result = deliberation_of(row, self._rosters)
        records = []
        for index, salts, *values in their_records:
            witnessed = entries.get(index, LoggedEntry(-1, b"", b""))
            records.append(StoredRecord(record_of(values), witnessed, None if salts is None else bytes(salts)))
        own = [item.record for item in records]
        if result is None:
            whole = as_it_stands(found, own)
            glance = shown_on_a_page(whole)
        else:
            whole, glance = result.in_full(found, own), result.at_a_glance(found)
        return StoredDeliberation(
            position=row.position,
            first_index=row.first_index,
            deliberation=whole,
            at_a_glance=glance,
            salts=None if row.salts is None else bytes(row.salts),
            records=records,
            entries=list(entries.values()),
            root_hash=None if row.tree_size is None else roots.get(row.tree_size),
        )


def _require_origin(items: Sequence[Deliberation], origin: str) -> None:
    for each in items:
        told = each.specification.topic_origin
        # Once its texts are erased only its entry says where its topic came from.
        if told != origin and not each.erased:
            raise RecordMismatchError(deliberation_id=each.id, part="origin", recorded=str(told), found=origin)


def _require_matches(items: Sequence[Deliberation], search: Search) -> None:
    for each in items:
        if not each.erased and not search.matches(each):
            raise RecordMismatchError(deliberation_id=each.id, part="catalogue", recorded="", found="another's words")


def read_one(connection: Connection, rosters: RosterTexts, deliberation_id: str) -> Deliberation | None:
    """The deliberation as it is stored, compared with nothing: for what is about to remove or to prove its texts."""
    row = connection.execute(_ONE, {"own": deliberation_id}).first()
    if row is None:
        return None
    found, result = deliberation_of(row, rosters)
    records = [record_of(row) for row in connection.execute(_RECORDS, {"own": deliberation_id}).all()]
    return as_it_stands(found, records) if result is None else result.in_full(found, records)


def read_records(
    connection: Connection, deliberation_id: str, *, round_number: int | None = None, after: int = -1
) -> list[StoredRecord]:
    """The records of one round, or of all, in the order of their commit; only those whose leaf follows `after`."""
    question = _WITNESSED if round_number is None else _WITNESSED_OF_ROUND
    values: dict[str, Any] = {"own": deliberation_id, "round": round_number}
    if after >= 0:
        question = _WITNESSED_AFTER if round_number is None else _WITNESSED_OF_ROUND_AFTER
        values["after"] = after
    found = []
    for row in connection.execute(question, values).all():
        entry, salts, record = row[: len(ENTRY_COLUMNS)], row[len(ENTRY_COLUMNS)], row[len(ENTRY_COLUMNS) + 1 :]
        witnessed = LoggedEntry(-1, b"", b"") if entry[0] is None else entry_of(entry)
        found.append(StoredRecord(record_of(record), witnessed, None if salts is None else bytes(salts)))
    return found


def read_events(connection: Connection, deliberation_id: str, *, after: int, limit: int) -> list[Event]:
    """The events that follow `after`, in order."""
    values = {"own": deliberation_id, "after": after, "most": limit}
    found: list[Event] = []
    for sequence, entry in connection.execute(_EVENTS, values).all():
        found += (event for event in events_of_entry(sequence, entry) if event.sequence > after)
    return found[:limit]


def read_origins(connection: Connection, *, since: datetime, key_name: str | None) -> dict[str, int]:
    """How many of the latest deliberations came from where, of those accepted since then; only the last 10,000 are looked at."""
    last = connection.execute(select(func.max(deliberations.c.position))).scalar() or 0
    question = (
        select(topics.c.origin, func.count())
        .join(deliberations, deliberations.c.id == topics.c.deliberation_id)
        .where(deliberations.c.position > last - _COUNTED_TOPICS, deliberations.c.created_at >= since)
        .group_by(topics.c.origin)
    )
    if key_name is not None:
        question = question.where(deliberations.c.key_name == key_name)
    return {str(row[0]): int(row[1]) for row in connection.execute(question)}


def _rows(connection: Connection, question: Select[Any], values: Mapping[str, Any]) -> Sequence[Row[Any]]:
    try:
        return connection.execute(question, values).all()
    except UNREADABLE:
        # One by one, so that the one which cannot be read is named.
        ids = connection.execute(question.with_only_columns(deliberations.c.id), values).scalars().all()
        return [readable(own, partial(_one_row, connection, own)) for own in ids]


def _rows_of_records(connection: Connection, deliberation_id: str) -> Sequence[Row[Any]]:
    return connection.execute(_THEIR_RECORDS, {"these": [deliberation_id]}).all()


def _one_row(connection: Connection, deliberation_id: str) -> Row[Any]:
    return connection.execute(_ONE, {"own": deliberation_id}).one()
