"""Counts the recorded ballots of a deliberation again by another rule, and records that it was done and what came of it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

from application.ports.metrics import Metrics, NullMetrics
from application.services.track_record_service import TrackRecordService
from application.services.witness_service import WitnessService
from domain.analysis.recount import recount, recount_problems
from domain.errors.deliberation import IllegalTransitionError, InvalidSpecificationError
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome
from domain.voting.rule import WEIGHTED_BY_RECORD, Rule
from domain.witness.sequel import RECOUNTED, recounted_facts

__all__ = ["Recount", "RecountService"]


@dataclass(frozen=True, slots=True)
class Recount:
    """What a rule makes of the ballots of a deliberation; `outcome` is None where that was not completed. `index` is its entry's."""

    deliberation: Deliberation
    rule: Rule
    outcome: Outcome | None
    index: int


class RecountService:
    """Asks no agent and changes nothing of the deliberation. What is answered is in the log before.

    The same recount is recorded once: whoever asks for it again, because the answer was lost say, is answered from that entry.
    """

    def __init__(self, *, witness: WitnessService, record: TrackRecordService, metrics: Metrics | None = None) -> None:
        self._witness = witness
        self._record = record
        self._metrics = metrics if metrics is not None else NullMetrics()

    async def recount(self, deliberation: Deliberation, rule: Rule, *, key_name: str | None) -> Recount:
        """The recount, recorded. `deliberation` is whole, with its rounds.

        Raises `InvalidSpecificationError` for a rule that does not fit, `IllegalTransitionError` before the end, `LogUnverifiedError`
        and `DependencyUnavailableError`.
        """
        specification = deliberation.specification
        if problems := recount_problems(specification, rule):
            raise InvalidSpecificationError(problems)
        if not deliberation.status.is_terminal:
            raise IllegalTransitionError(present=deliberation.status.value, wanted=RECOUNTED)
        rule = await self._weighed(deliberation, rule)
        outcome = await asyncio.to_thread(recount, deliberation, rule)
        facts = recounted_facts(specification, rule, outcome)
        index = await self._recorded(deliberation.id, facts)
        if index is None:
            logged = await self._witness.follow_up(deliberation.id, RECOUNTED, facts=facts, key_name=key_name)
            index = logged.index
            self._metrics.recounted()
        return Recount(deliberation, rule, outcome, index)

    async def _weighed(self, deliberation: Deliberation, rule: Rule) -> Rule:
        """The weights that were agreed on, where they were; else what is learned by now, from other questions than this."""
        if rule.weighted_by != WEIGHTED_BY_RECORD:
            return rule
        specification = deliberation.specification
        asked = replace(specification, rule=replace(rule, weights=specification.rule.weights))
        found = await self._record.weighed(
            asked,
            key_name=deliberation.key_name,
            orchestrator=deliberation.orchestrator,
            besides=deliberation.id,
        )
        return found.rule

    async def _recorded(self, deliberation_id: str, facts: dict[str, object]) -> int | None:
        """Where the log has this very recount already."""
        said = json.loads(json.dumps(facts))
        for logged in await self._witness.sequels(deliberation_id, RECOUNTED):
            document = json.loads(logged.entry)
            if all(document.get(name) == value for name, value in said.items()):
                return logged.index
        return None
