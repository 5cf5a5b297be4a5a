"""Finds out what texts come to after the last round: by an embedder where there is one, and off the event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord, TextEmbedder
from domain.analysis.decision import counted_ballots
from domain.errors.agent import AgentInvocationError
from domain.errors.budget import BudgetExceededError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, Specification
from domain.models.money import KeyBudget
from domain.models.outcome import Synthesis
from domain.models.round import AgentRecord
from domain.models.spending import budget_of
from domain.voting.ballot import Ballot
from domain.voting.rule import RuleKind
from domain.voting.similarity import by_vectors
from domain.voting.synthesis import synthesise

__all__ = ["TextSynthesis"]

_logger = logging.getLogger(__name__)


class TextSynthesis:
    """Clusters and claims of the texts that are counted.

    Where the embedder is away, or what it takes passes a budget, they are compared by their words, and say so.
    """

    def __init__(self, embedder: TextEmbedder | None = None, *, budgets: Mapping[str, KeyBudget] | None = None) -> None:
        """`budgets` are those of the API keys by their names, "*" for everybody without one."""
        self._embedder = embedder
        self._budgets = dict(budgets or {})

    @property
    def embedder_name(self) -> str | None:
        """What compares the texts, or None where their words do."""
        return None if self._embedder is None else self._embedder.name

    def needs_price(self, specification: Specification, key_name: str | None) -> bool:
        """Whether the money for it is limited, so that nothing without a known price is asked for it."""
        budget = budget_of(self._budgets, key_name or "")
        is_bounded = budget is not None and (budget.day is not None or budget.month is not None)
        return is_bounded or specification.limits.has_money_limit

    def foresee(self, specification: Specification, text: str, *, key_name: str | None) -> Forecast | None:
        """What comparing one such text of each agent takes; None where no provider would be asked for it."""
        agents = len(specification.roster.agents)
        if self._embedder is None or specification.rule.kind is not RuleKind.SYNTHESIS or agents < 2:
            return None
        try:
            forecast = self._embedder.foresee([text] * agents)
        except AgentInvocationError:
            return None
        if forecast is None or (forecast.hold.cost is None and self.needs_price(specification, key_name)):
            return None
        return forecast

    async def of(
        self,
        deliberation: Deliberation,
        records: Sequence[AgentRecord],
        *,
        record: CallRecord | None = None,
        by_words: bool = False,
    ) -> Synthesis | None:
        """What these records come to; None where the rule counts no texts.

        Calls to a provider are announced to `record`. With `by_words` no embedder is asked.
        """
        if deliberation.specification.rule.kind is not RuleKind.SYNTHESIS:
            return None
        ballots = [ballot for ballot in counted_ballots(deliberation, records) if isinstance(ballot.answer, str)]
        embedder = self._embedder
        if embedder is not None and len(ballots) > 1 and not by_words:
            try:
                vectors = await embedder.embed([str(ballot.answer) for ballot in ballots], record=record)
            except (DependencyUnavailableError, BudgetExceededError) as error:
                _logger.warning(
                    "the texts of deliberation %s are compared by their words: %s",
                    deliberation.id,
                    error,
                    extra={"deliberation_id": deliberation.id},
                )
            else:
                return await asyncio.to_thread(_by_embedder, ballots, vectors, embedder)
        return await asyncio.to_thread(synthesise, ballots)


def _by_embedder(ballots: Sequence[Ballot], vectors: Sequence[Sequence[float]], embedder: TextEmbedder) -> Synthesis:
    return synthesise(ballots, alike=by_vectors(vectors), at_least=embedder.alike_from, method=embedder.name)
