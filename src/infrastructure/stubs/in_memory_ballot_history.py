"""Reads the ballots of deliberations that are kept in memory, as the databases do."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from application.ports.ballot_history import Earlier
from application.ports.deliberation_repository import DeliberationReader
from domain.analysis.past import PastAnswer, PastBallots
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.roll_call import AgentState

__all__ = ["InMemoryBallotHistory"]

_ALL = 2**31


class InMemoryBallotHistory:
    """`BallotHistory` over whatever the reader has at the moment of reading."""

    def __init__(self, reader: DeliberationReader) -> None:
        self._reader = reader

    async def earlier(self, asked: Earlier) -> Sequence[str]:
        """As in `BallotHistory`."""
        found = [each.id for each in await self._completed() if _is_asked_for(each, asked)]
        return found[-asked.limit :] if asked.limit > 0 else []

    async def ballots(self, deliberation_ids: Collection[str]) -> Sequence[PastBallots]:
        """As in `BallotHistory`."""
        wanted = set(deliberation_ids)
        return [
            PastBallots.of(each.id, each.finished_at, each.specification.question.answer, _answers_of(each))
            for each in await self._completed()
            if each.id in wanted and each.finished_at is not None
        ]

    async def _completed(self) -> list[Deliberation]:
        kept = [stored.deliberation for stored in await self._reader.stored(after=0, limit=_ALL)]
        return [each for each in kept if each.status is DeliberationStatus.COMPLETED]


def _is_asked_for(each: Deliberation, asked: Earlier) -> bool:
    return (
        each.id != asked.besides
        and each.key_name == asked.key_name
        and each.orchestrator == asked.orchestrator
        and each.finished_at is not None
        and each.finished_at <= asked.until
        and any(record.agent_id == asked.agent_id for record in each.rounds[0].records)
    )


def _answers_of(each: Deliberation) -> list[PastAnswer]:
    return [
        PastAnswer(record.round_number, record.agent_id, record.model, record.answer)
        for round_ in each.rounds
        for record in round_.records
        if record.state is AgentState.ANSWERED
    ]
