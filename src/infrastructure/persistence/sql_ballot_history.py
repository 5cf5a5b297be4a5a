"""Reads the ballots of deliberations that have ended from SQLite or Postgres, without the texts that came with them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

from sqlalchemy import Connection, bindparam, exists, select

from application.ports.ballot_history import Earlier
from domain.analysis.past import PastAnswer, PastBallots
from domain.models.deliberation import DeliberationStatus
from domain.models.question import AnswerFormat
from infrastructure.persistence.database import Database
from infrastructure.persistence.documents import from_document, is_storable, load
from infrastructure.persistence.recorded_answers import ANSWERS, answer_of, in_groups
from infrastructure.persistence.tables import agent_records, deliberations, specifications

__all__ = ["SqlBallotHistory"]

_LOOKED_AT = 2_000

_QUESTIONS = (
    select(deliberations.c.id, deliberations.c.finished_at, specifications.c.specification)
    .join(specifications)
    .where(deliberations.c.id.in_(bindparam("these", expanding=True)))
)


class SqlBallotHistory:
    """`BallotHistory` over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def earlier(self, asked: Earlier) -> Sequence[str]:
        """As in `BallotHistory`."""
        if not is_storable(asked.agent_id):
            return []
        key = deliberations.c.key_name
        completed = (
            select(deliberations.c.id, deliberations.c.position)
            .where(
                deliberations.c.status == DeliberationStatus.COMPLETED.value,
                key.is_(None) if asked.key_name is None else key == asked.key_name,
                deliberations.c.orchestrator == asked.orchestrator,
                deliberations.c.finished_at <= asked.until,
                deliberations.c.id != asked.besides,
            )
            .order_by(deliberations.c.position.desc())
            .limit(_LOOKED_AT)
            .subquery()
        )
        was_asked = exists().where(
            agent_records.c.deliberation_id == completed.c.id,
            agent_records.c.round_number == 0,
            agent_records.c.agent_id == asked.agent_id,
        )
        question = select(completed.c.id).where(was_asked).order_by(completed.c.position.desc()).limit(asked.limit)

        def read(connection: Connection) -> list[str]:
            return list(connection.execute(question).scalars())

        return list(reversed(await self._database.read(read)))

    async def ballots(self, deliberation_ids: Collection[str]) -> Sequence[PastBallots]:
        """As in `BallotHistory`."""
        wanted = [own for own in deliberation_ids if is_storable(own)]
        found: list[PastBallots] = []
        for these in in_groups(wanted):
            found += await self._database.read(partial(_read, these=these))
        return found


def _read(connection: Connection, these: Sequence[str]) -> list[PastBallots]:
    given: dict[str, list[PastAnswer]] = {}
    for row in connection.execute(ANSWERS, {"these": these}):
        answer = PastAnswer(row.round_number, row.agent_id, row.model, answer_of(row.answer))
        given.setdefault(row.deliberation_id, []).append(answer)
    return [
        PastBallots.of(
            row.id,
            row.finished_at,
            from_document(AnswerFormat, load(row.specification)["question"]["answer"]),
            given.get(row.id, ()),
        )
        for row in connection.execute(_QUESTIONS, {"these": these})
    ]
