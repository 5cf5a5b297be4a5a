"""Reads resolved questions and what was answered to them from SQLite or Postgres, without the texts that came with the answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, bindparam, exists, select

from application.ports.witness_log import LoggedEntry
from application.services.resolution_entry import read_resolution
from domain.analysis.scoring import given_answers
from domain.analysis.track_record import Resolved
from domain.models.deliberation import Specification
from domain.models.question import AnswerFormat
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.ballot import Answer
from infrastructure.persistence.database import Database
from infrastructure.persistence.documents import from_document, is_storable, load
from infrastructure.persistence.recorded_answers import ANSWERS, answer_of, in_groups
from infrastructure.persistence.rows import DELIBERATION_COLUMNS, ENTRY_COLUMNS, RosterTexts, deliberation_of, entry_of
from infrastructure.persistence.tables import agent_records, deliberations, resolutions, specifications, witness_entries

__all__ = ["SqlResolutionHistory"]

_NO_TIME = datetime.min.replace(tzinfo=UTC)

_later = resolutions.alias("later")
_STANDS = ~exists().where(_later.c.deliberation_id == resolutions.c.deliberation_id, _later.c.idx > resolutions.c.idx)
_ENTRIES = select(*ENTRY_COLUMNS).join(resolutions, resolutions.c.idx == witness_entries.c.idx).where(_STANDS)
_LATEST = _ENTRIES.where(resolutions.c.deliberation_id == bindparam("own"))
_TRUTHS = (
    select(*ENTRY_COLUMNS, specifications.c.specification)
    .join(resolutions, resolutions.c.idx == witness_entries.c.idx)
    .join(specifications, specifications.c.deliberation_id == resolutions.c.deliberation_id)
    .where(resolutions.c.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(resolutions.c.idx)
)
_RECORDS = ANSWERS.add_columns(agent_records.c.confidence)


class SqlResolutionHistory:
    """`ResolutionHistory` over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rosters = RosterTexts()

    async def latest(self, deliberation_id: str) -> LoggedEntry | None:
        """As in `ResolutionHistory`."""
        if not is_storable(deliberation_id):
            return None

        def read(connection: Connection) -> LoggedEntry | None:
            row = connection.execute(_LATEST, {"own": deliberation_id}).first()
            return None if row is None else entry_of(row)

        return await self._database.read(read)

    async def resolved(self, *, key_name: str | None, orchestrator: str, limit: int) -> Sequence[Resolved]:
        """As in `ResolutionHistory`."""
        key = deliberations.c.key_name
        question = (
            select(*ENTRY_COLUMNS, *DELIBERATION_COLUMNS)
            .join(resolutions, resolutions.c.idx == witness_entries.c.idx)
            .join(deliberations, deliberations.c.id == resolutions.c.deliberation_id)
            .join(specifications, specifications.c.deliberation_id == deliberations.c.id)
            .where(
                _STANDS,
                key.is_(None) if key_name is None else key == key_name,
                deliberations.c.orchestrator == orchestrator,
            )
            .order_by(resolutions.c.idx.desc())
            .limit(limit)
        )
        return await self._database.read(partial(self._resolved, question=question))

    async def truths(self, deliberation_ids: Collection[str], *, until: datetime) -> Mapping[str, Answer]:
        """As in `ResolutionHistory`."""
        wanted = [own for own in deliberation_ids if is_storable(own)]
        found: dict[str, Answer] = {}
        for these in in_groups(wanted):
            found |= await self._database.read(partial(_truths, these=these, until=until))
        return found

    def _resolved(self, connection: Connection, *, question: Any) -> list[Resolved]:
        rows = connection.execute(question).all()
        told: list[tuple[str, LoggedEntry, Specification]] = []
        for row in rows:
            entry = entry_of(row[: len(ENTRY_COLUMNS)])
            # By their tables, because an entry has the id of its deliberation in a column of another name.
            found, _ = deliberation_of(row, self._rosters)
            told.append((found.id, entry, found.specification))
        given: dict[str, list[AgentRecord]] = {}
        ids = [own for own, _, _ in told]
        for these in in_groups(ids):
            for row in connection.execute(_RECORDS, {"these": these}):
                given.setdefault(row.deliberation_id, []).append(_record(row))
        return [
            Resolved(
                own,
                specification.question.answer,
                read_resolution(own, entry, specification.question.answer)[0],
                tuple(given_answers(specification, given.get(own, ()))),
            )
            for own, entry, specification in told
        ]


def _truths(connection: Connection, *, these: Sequence[str], until: datetime) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for row in connection.execute(_TRUTHS, {"these": these}):
        entry = entry_of(row[: len(ENTRY_COLUMNS)])
        answer = from_document(AnswerFormat, load(row.specification)["question"]["answer"])
        own = str(entry.deliberation_id)
        truth, at = read_resolution(own, entry, answer)
        if at <= until:
            found[own] = truth
    return found


def _record(row: Row[*tuple[Any, ...]]) -> AgentRecord:
    return AgentRecord(
        row.round_number,
        row.agent_id,
        AgentState.ANSWERED,
        1,
        None,
        _NO_TIME,
        answer=answer_of(row.answer),
        confidence=row.confidence,
        model=row.model,
    )
