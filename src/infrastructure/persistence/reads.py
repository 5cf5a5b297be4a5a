"""Reads deliberations, records and events within a transaction of the caller."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, select

from application.ports.deliberation_repository import Page, StoredRecord
from application.ports.witness_log import LoggedEntry
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.event import Event
from domain.models.round import AgentRecord
from infrastructure.persistence.rows import (
    DELIBERATION_COLUMNS,
    ENTRY_COLUMNS,
    GLANCE_COLUMNS,
    RECORD_COLUMNS,
    RosterTexts,
    deliberation_of,
    entry_of,
    events_of_entry,
    record_of,
)
from infrastructure.persistence.standing import as_it_stands
from infrastructure.persistence.tables import agent_records, deliberations, specifications, witness_entries

__all__ = ["position_of", "read_events", "read_one", "read_page", "read_records"]

_MAX_POSITION_DIGITS = 18

# Made once, because making a statement takes longer than running it.
_EVERY = select(*DELIBERATION_COLUMNS).join(specifications)
_ONE = _EVERY.where(deliberations.c.id == bindparam("own"))
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
_GLANCES = (
    select(*GLANCE_COLUMNS)
    .where(agent_records.c.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(agent_records.c.deliberation_id, agent_records.c.ordinal)
)
_EVENTS = (
    select(witness_entries.c.sequence, witness_entries.c.entry)
    .where(witness_entries.c.deliberation_id == bindparam("own"), witness_entries.c.sequence > bindparam("after"))
    .order_by(witness_entries.c.sequence, witness_entries.c.idx)
    .limit(bindparam("most"))
)


def read_one(connection: Connection, rosters: RosterTexts, deliberation_id: str) -> Deliberation | None:
    """The deliberation, with rounds made of what is committed, or None."""
    row = connection.execute(_ONE, {"own": deliberation_id}).first()
    if row is None:
        return None
    found, result = deliberation_of(row, rosters)
    records = [record_of(row) for row in connection.execute(_RECORDS, {"own": deliberation_id}).all()]
    return as_it_stands(found, records) if result is None else result.in_full(found, records)


def read_page(
    connection: Connection,
    rosters: RosterTexts,
    *,
    status: DeliberationStatus | None,
    key_name: str | None,
    limit: int,
    before: int | None,
) -> Page:
    """Deliberations of a lower position than `before`, newest first, without rounds and without any text of an agent."""
    question = _EVERY.order_by(deliberations.c.position.desc()).limit(limit + 1)
    if status is not None:
        question = question.where(deliberations.c.status == status.value)
    if key_name is not None:
        question = question.where(deliberations.c.key_name == key_name)
    if before is not None:
        question = question.where(deliberations.c.position < before)
    rows = connection.execute(question).all()
    found = [deliberation_of(row, rosters) for row in rows[:limit]]
    glances = _glance_at_records(connection, [each.id for each, result in found if result is None])
    items = tuple(
        replace(as_it_stands(each, glances.get(each.id, ())), rounds=()) if result is None else result.at_a_glance(each)
        for each, result in found
    )
    return Page(items, _cursor_of(rows[limit - 1].position) if len(rows) > limit else None)


def read_records(
    connection: Connection, deliberation_id: str, *, round_number: int | None = None
) -> list[StoredRecord]:
    """The records of one round, or of all, in the order of their commit."""
    question = _WITNESSED if round_number is None else _WITNESSED_OF_ROUND
    values = {"own": deliberation_id, "round": round_number}
    found = []
    for index, leaf_hash, entry, owner, salts, *record in connection.execute(question, values).all():
        witnessed = LoggedEntry(-1, b"", b"") if index is None else entry_of((index, leaf_hash, entry, owner))
        found.append(StoredRecord(record_of(record), witnessed, None if salts is None else bytes(salts)))
    return found


def read_events(connection: Connection, deliberation_id: str, *, after: int, limit: int) -> list[Event]:
    """The events that follow `after`, in order."""
    values = {"own": deliberation_id, "after": after, "most": limit}
    found: list[Event] = []
    for sequence, entry in connection.execute(_EVENTS, values).all():
        found += (event for event in events_of_entry(sequence, entry) if event.sequence > after)
    return found[:limit]


def position_of(cursor: str) -> int:
    """The position that a page was cut at. Raises `InvalidSpecificationError` for what is no cursor of ours."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    if not (text.isdecimal() and len(text) <= _MAX_POSITION_DIGITS and _cursor_of(int(text)) == cursor):
        raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")
    return int(text)


def _cursor_of(position: int) -> str:
    return base64.urlsafe_b64encode(str(position).encode()).decode().rstrip("=")


def _glance_at_records(connection: Connection, deliberation_ids: Sequence[str]) -> dict[str, list[AgentRecord]]:
    """The records of each of these in the order of their commit, without any text of an agent."""
    found: dict[str, list[AgentRecord]] = {}
    if deliberation_ids:
        for deliberation_id, *values in connection.execute(_GLANCES, {"these": list(deliberation_ids)}).all():
            found.setdefault(deliberation_id, []).append(record_of(values))
    return found
