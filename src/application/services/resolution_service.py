"""Records how a question turned out, and says who was right."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from application.ports.metrics import Metrics, NullMetrics
from application.services.resolution_entry import read_resolution
from application.services.track_record_service import TrackRecordService
from application.services.witness_service import WitnessService
from domain.analysis.scoring import Given, Scores, given_answers, read_truth, score
from domain.analysis.track_record import Bin, Resolved, TrackRecord, calibration_of
from domain.errors.deliberation import FieldProblem, IllegalTransitionError, InvalidSpecificationError
from domain.models.deliberation import Deliberation
from domain.voting.ballot import Answer
from domain.witness.sequel import RESOLVED, resolved_facts

__all__ = ["Resolution", "ResolutionService"]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The truth, everybody's score against it, how well confidence fitted, and the track record that it is part of by now."""

    deliberation: Deliberation
    truth: Answer
    given: tuple[Given, ...]
    scores: Scores
    calibration: tuple[Bin, ...]
    record: TrackRecord
    index: int


class ResolutionService:
    """What is answered is in the log before. A truth that turns out otherwise is told again: the last one stands.

    The same truth is recorded once, however often it is told.
    """

    def __init__(self, *, witness: WitnessService, record: TrackRecordService, metrics: Metrics | None = None) -> None:
        self._witness = witness
        self._record = record
        self._metrics = metrics if metrics is not None else NullMetrics()

    async def resolve(self, deliberation: Deliberation, told: object, *, key_name: str | None) -> Resolution:
        """The resolution, recorded. `deliberation` is whole, with its rounds.

        Raises `InvalidSpecificationError` for what is no answer to this question, `IllegalTransitionError` before the end,
        `LogUnverifiedError` and `DependencyUnavailableError`.
        """
        specification = deliberation.specification
        answer = specification.question.answer
        truth = read_truth(answer, told)
        if isinstance(truth, FieldProblem):
            raise InvalidSpecificationError([truth])
        if not deliberation.status.is_terminal:
            raise IllegalTransitionError(present=deliberation.status.value, wanted=RESOLVED)
        given = given_answers(specification, (record for each in deliberation.rounds for record in each.records))
        outcome = deliberation.outcome
        scores = await asyncio.to_thread(
            score,
            answer,
            given,
            truth,
            members=[agent.id for agent in specification.roster.agents],
            completed=outcome is not None,
            decision=None if outcome is None else outcome.decision,
        )
        latest = await self._record.history.latest(deliberation.id)
        if latest is not None and read_resolution(deliberation.id, latest, answer)[0] == truth:
            index = latest.index
        else:
            facts = resolved_facts(specification, truth, scores)
            index = (await self._witness.follow_up(deliberation.id, RESOLVED, facts=facts, key_name=key_name)).index
            self._metrics.resolved()
        record = await self._record.of(key_name=deliberation.key_name, orchestrator=deliberation.orchestrator)
        resolved = Resolved(deliberation.id, answer, truth, tuple(given))
        return Resolution(deliberation, truth, tuple(given), scores, calibration_of([resolved]), record, index)
