"""Turns deliberations, records and events into rows of the tables, and rows back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Dialect, Row, RowMapping, Table

from application.ports.witness_log import LoggedEntry
from domain.models.agent import Roster
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification, WitnessSpan
from domain.models.event import Event
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.witness.entry import salt_at
from domain.witness.happenings import events_of
from infrastructure.persistence.documents import (
    dump,
    from_document,
    is_storable,
    load,
    time_from_text,
    time_to_text,
    to_document,
)
from infrastructure.persistence.standing import Result
from infrastructure.persistence.tables import agent_records, deliberations, specifications, witness_entries

__all__ = [
    "DELIBERATION_COLUMNS",
    "ENTRY_COLUMNS",
    "RECORD_COLUMNS",
    "STANDING_COLUMNS",
    "RosterTexts",
    "RowWriter",
    "deliberation_of",
    "entry_of",
    "events_of_entry",
    "new_values",
    "record_of",
    "specification_values",
    "standing_values",
    "stored_bytes",
]

_RECORD = agent_records.c
DELIBERATION_COLUMNS = (
    *deliberations.c,
    specifications.c.specification,
    specifications.c.roster,
    specifications.c.salts,
)
ENTRY_COLUMNS = (
    witness_entries.c.idx,
    witness_entries.c.leaf_hash,
    witness_entries.c.entry,
    witness_entries.c.deliberation_id,
    witness_entries.c.sequence,
)
_NO_PART = {_RECORD.deliberation_id, _RECORD.ordinal, _RECORD.leaf_index, _RECORD.salts}
RECORD_COLUMNS = tuple(column for column in agent_records.c if column not in _NO_PART)
STANDING_COLUMNS = ("status", "started_at", "finished_at", "orchestrator", "simulated", "result")
"""The columns of `deliberations` that `standing_values` gives."""

_MAX_ROSTERS = 32
_NO_ROSTER: Mapping[str, Any] = {"name": "", "agents": []}


class RosterTexts:
    """The latest rosters beside their texts: most deliberations have the same one, and it is long to write and to read."""

    def __init__(self) -> None:
        self._texts: dict[Roster, str] = {}
        self._rosters: dict[str, Roster] = {}

    def text_of(self, roster: Roster) -> str:
        """The roster as JSON text."""
        text = self._texts.get(roster)
        if text is None:
            text = dump(to_document(roster))
            if len(self._texts) >= _MAX_ROSTERS:
                self._texts.clear()
            self._texts[roster] = text
        return text

    def roster_of(self, text: str) -> Roster:
        """The inverse of `text_of`. Raises `UnreadableDocumentError`."""
        roster = self._rosters.get(text)
        if roster is None:
            roster = from_document(Roster, load(text))
            if len(self._rosters) >= _MAX_ROSTERS:
                self._rosters.clear()
            self._rosters[text] = roster
        return roster


class RowWriter:
    """Makes rows that a driver takes as they are. Raises `ValueError` for a text, number or time that cannot be stored."""

    def __init__(self, dialect: Dialect) -> None:
        self._moment = time_to_text if dialect.name == "sqlite" else _zoned

    def values(self, table: Table, named: Mapping[str, Any]) -> tuple[Any, ...]:
        """Values by the names of the table's columns, all of them, in the order of the columns."""
        found = [named[column.name] for column in table.columns]
        return tuple(self._moment(value) if isinstance(value, datetime) else value for value in found)

    def record(self, record: AgentRecord) -> tuple[Any, ...]:
        """The values of the columns of `agent_records` from `state` on, but for leaf index and salts, which stand before the last three."""
        content, failure, usage = record.content, record.failure, record.usage
        return (
            record.state.value,
            record.attempts,
            None if record.started_at is None else self._moment(record.started_at),
            self._moment(record.finished_at),
            None if content is None else _storable(content),
            None if record.answer is None else dump(record.answer),
            None if record.confidence is None else _finite(record.confidence),
            None if record.reasoning is None else _storable(record.reasoning),
            None if failure is None else _storable(failure.kind),
            None if failure is None else _storable(failure.message),
            None if record.model_asked is None else _storable(record.model_asked),
            None if record.model is None else _storable(record.model),
            usage.calls,
            usage.input_tokens,
            usage.output_tokens,
            _finite(usage.cost_usd),
            record.truncated,
            _finite(record.duration_seconds),
            usage.uncertain_tokens,
            _finite(usage.uncertain_usd),
            record.fell_back,
        )


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: times are stored in UTC.")
    return moment


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number!r} is no number that can be stored: check it before it is recorded.")
    return number


def _storable(text: str) -> str:
    if not is_storable(text):
        raise ValueError("a text holds a NUL or a lone surrogate: clean texts before they are recorded.")
    return text


def new_values(deliberation: Deliberation) -> dict[str, Any]:
    """The columns of a new row of `deliberations`, position and lease apart."""
    key_name = deliberation.key_name
    return {
        "id": _storable(deliberation.id),
        "key_name": None if key_name is None else _storable(key_name),
        "created_at": deliberation.created_at,
        "cancel_requested": deliberation.cancel_requested,
        **standing_values(deliberation),
    }


def specification_values(deliberation: Deliberation, rosters: RosterTexts, salts: bytes) -> dict[str, Any]:
    """The columns of its row of `specifications`."""
    specification = deliberation.specification
    document = to_document(replace(specification, roster=Roster("", ())))
    del document["roster"]
    return {
        "deliberation_id": deliberation.id,
        "specification": dump(document),
        "roster": rosters.text_of(specification.roster),
        "salts": salts,
    }


def standing_values(deliberation: Deliberation) -> dict[str, Any]:
    """The columns of `deliberations` that change while it runs, lease and cancellation apart."""
    result = None
    if deliberation.status.is_terminal:
        result = dump(to_document(Result.of(deliberation)))
    return {
        "status": deliberation.status.value,
        "started_at": deliberation.started_at,
        "finished_at": deliberation.finished_at,
        "orchestrator": _storable(deliberation.orchestrator),
        "simulated": deliberation.simulated,
        "result": result,
    }


def deliberation_of(row: Row[Any], rosters: RosterTexts) -> tuple[Deliberation, Result | None]:
    """A row of `DELIBERATION_COLUMNS`: the deliberation without what became of it, and that, once it ended.

    Raises `UnreadableDocumentError` for a row that this version does not write.
    """
    values = row._mapping
    specification = from_document(Specification, {**load(values["specification"]), "roster": _NO_ROSTER})
    result = None if values["result"] is None else from_document(Result, load(values["result"]))
    found = Deliberation(
        id=values["id"],
        specification=replace(specification, roster=rosters.roster_of(values["roster"])),
        created_at=values["created_at"],
        orchestrator=values["orchestrator"],
        simulated=values["simulated"],
        key_name=values["key_name"],
        status=DeliberationStatus(values["status"]),
        started_at=values["started_at"],
        finished_at=values["finished_at"],
        cancel_requested=values["cancel_requested"],
        witness=_span(values),
        question_salt=b"" if values["salts"] is None else salt_at(bytes(values["salts"]), 0),
        erased=values["salts"] is None,
    )
    return found, result


def _span(values: RowMapping) -> WitnessSpan | None:
    if values["tree_size"] is None:
        return None
    return WitnessSpan(values["first_index"], values["last_index"], values["tree_size"], values["root_hash"])


def record_of(row: Iterable[Any]) -> AgentRecord:
    """The values of `RECORD_COLUMNS` as a record."""
    (
        round_number,
        agent_id,
        state,
        attempts,
        started_at,
        finished_at,
        content,
        answer,
        confidence,
        reasoning,
        failure_kind,
        failure_message,
        model_asked,
        model,
        calls,
        input_tokens,
        output_tokens,
        cost_usd,
        truncated,
        duration_seconds,
        uncertain_tokens,
        uncertain_usd,
        fell_back,
    ) = tuple(row)
    given = None if answer is None else load(answer)
    return AgentRecord(
        round_number,
        agent_id,
        AgentState(state),
        attempts,
        started_at,
        finished_at,
        content,
        tuple(given) if isinstance(given, list) else given,
        confidence,
        reasoning,
        None if failure_kind is None else FailureCause(failure_kind, failure_message or ""),
        model_asked,
        model,
        Usage(calls, input_tokens, output_tokens, cost_usd, uncertain_tokens, uncertain_usd),
        truncated,
        duration_seconds,
        fell_back,
    )


def entry_of(row: Iterable[Any]) -> LoggedEntry:
    """The values of `ENTRY_COLUMNS` as an entry."""
    index, leaf_hash, entry, deliberation_id, sequence = tuple(row)
    return LoggedEntry(index, stored_bytes(leaf_hash), stored_bytes(entry), deliberation_id, sequence)


def stored_bytes(value: Any) -> bytes:
    """The bytes in a column of bytes. Where somebody put something else there, bytes that verify as nothing."""
    if type(value) is bytes:
        return value
    return bytes(value) if isinstance(value, memoryview) else str(value).encode()


def events_of_entry(sequence: int, entry: bytes) -> list[Event]:
    """The events that an entry makes; `sequence` is the number of the last."""
    document = load(stored_bytes(entry).decode())
    told = events_of(document)
    at = time_from_text(document["at"])
    first = sequence - len(told) + 1
    return [
        Event(document["deliberation_id"], number, kind, at, data) for number, (kind, data) in enumerate(told, first)
    ]
