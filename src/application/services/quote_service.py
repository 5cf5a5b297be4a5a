"""Says what a deliberation would take, expected and at most, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from application.ports.agent_orchestrator import AgentRequest
from application.ports.model_desk import ModelDesk
from application.services.embedding_record import MOST_COMPARISONS
from application.services.price_check import first_request, require_prices
from application.services.text_synthesis import TextSynthesis
from domain.analysis.control import control_specification
from domain.models.budget import Limits
from domain.models.deliberation import Specification
from domain.models.money import Hold, KeyBudget, picodollars, usd
from domain.protocols.extent import extent_of, largest_brief, typical_brief

__all__ = ["TYPICAL_EXCESS", "TYPICAL_OUTPUT_TOKENS", "Amount", "Quote", "QuoteService"]

TYPICAL_OUTPUT_TOKENS = 150
"""What a ballot with its one to three sentences of reasoning is expected to take; a model that thinks at length takes more."""

TYPICAL_EXCESS = 2.5
"""How many times what a prompt takes is held for it: estimates of tokens err high, by 2 to 3 times for prose, code and Chinese."""


# As long as an embedder reads it, in characters that take the most.
_LONGEST_TEXT = "\U0001f600" * 8_000
_TYPICAL_TEXT = "just words " * 55


@dataclass(frozen=True, slots=True)
class Amount:
    """What is expected, and what cannot be exceeded; None where it is not known."""

    expected: float | None
    at_most: float | None

    def plus(self, other: Amount) -> Amount:
        """The sum, not known where one part is not."""
        return Amount(_sum(self.expected, other.expected), _sum(self.at_most, other.at_most))


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


@dataclass(frozen=True, slots=True)
class Quote:
    """Calls, tokens and US dollars of a deliberation that is not held, and what its asker should know besides."""

    calls: Amount
    tokens: Amount
    cost_usd: Amount
    notices: tuple[str, ...] = ()

    def with_control(self, control: Quote) -> Quote:
        """Both together."""
        return Quote(
            self.calls.plus(control.calls),
            self.tokens.plus(control.tokens),
            self.cost_usd.plus(control.cost_usd),
            (*self.notices, *(f"Of the control: {notice}" for notice in control.notices)),
        )


@dataclass(slots=True)
class _Sum:
    calls: int = 0
    tokens: int = 0
    cost: int = 0

    def add(self, calls: int, *, tokens: int, cost: int | None) -> None:
        self.calls += calls
        self.tokens += calls * tokens
        self.cost += calls * (cost or 0)


class QuoteService:
    """Foresees every call of a deliberation as the fan-out would, and makes none.

    Expected is one call an agent and round, of the first model of its route, with what such a prompt typically takes and a typical
    answer. At most is every attempt at every model of the route with all that it may hold, within the limits of the request.
    """

    def __init__(
        self,
        *,
        desk: ModelDesk,
        budgets: Mapping[str, KeyBudget] | None = None,
        texts: TextSynthesis | None = None,
    ) -> None:
        """`budgets` are those of the API keys by their names, "*" for everybody without one; `texts` is what compares free texts."""
        self._desk = desk
        self._texts = texts if texts is not None else TextSynthesis()
        self._budgets = dict(budgets or {})

    def quote(self, specification: Specification, *, key_name: str | None = None) -> Quote:
        """The quote, that of a control included. Raises `InvalidSpecificationError` for what would not be accepted either."""
        own = self._of_one(specification, key_name)
        if specification.control is None:
            return own
        return own.with_control(self._of_one(control_specification(specification), key_name))

    def _of_one(self, specification: Specification, key_name: str | None) -> Quote:
        require_prices(specification, self._desk, budgets=self._budgets, key_name=key_name)
        limits = specification.limits
        expected, at_most = _Sum(), _Sum()
        unpriced: dict[str, None] = {}
        agents = specification.roster.agents
        extent = extent_of(specification.protocol, specification.question.answer, len(agents))
        for number, agent in enumerate(agents):
            request = first_request(specification, agent, key_name=key_name)
            written = 2 if number < extent.writers else 0
            for place, model in enumerate(self._desk.route(agent.model)):
                asked = replace(request, model=model)
                forecast = self._desk.foresee(asked)
                at_most.add(limits.max_attempts, tokens=forecast.hold.tokens, cost=forecast.hold.cost)
                if forecast.hold.cost is None:
                    unpriced[forecast.model or model or "the orchestrator's own"] = None
                later = extent.most_rounds - 1 + written
                if later:
                    hold = self._desk.foresee(replace(asked, brief=largest_brief())).hold
                    at_most.add(limits.max_attempts * later, tokens=hold.tokens, cost=hold.cost)
                if place == 0:
                    hold = self._typical(asked)
                    expected.add(1, tokens=hold.tokens, cost=hold.cost)
                    later = extent.expected_rounds - 1 + written
                    if later:
                        hold = self._typical(replace(asked, brief=typical_brief()))
                        expected.add(later, tokens=hold.tokens, cost=hold.cost)
        self._add_comparison(specification, key_name, expected, at_most, unpriced)
        return _quote(limits, expected, at_most, tuple(unpriced))

    def _add_comparison(
        self,
        specification: Specification,
        key_name: str | None,
        expected: _Sum,
        at_most: _Sum,
        unpriced: dict[str, None],
    ) -> None:
        """The call in which the answers are compared, where they are texts and a provider is asked for it."""
        most = self._texts.foresee(specification, _LONGEST_TEXT, key_name=key_name)
        typical = self._texts.foresee(specification, _TYPICAL_TEXT, key_name=key_name)
        if most is None or typical is None:
            return
        at_most.add(MOST_COMPARISONS, tokens=most.hold.tokens, cost=most.hold.cost)
        cost = typical.hold.cost
        expected.add(1, tokens=_typically(typical.hold.tokens), cost=None if cost is None else _typically(cost))
        if most.hold.cost is None:
            unpriced[most.model or "what compares texts"] = None

    def _typical(self, request: AgentRequest) -> Hold:
        """What the call is expected to take."""
        output = min(TYPICAL_OUTPUT_TOKENS, request.sampling.max_output_tokens)
        # What the prompt alone takes at most, told apart by a call that would answer nothing.
        read, whole = (
            self._desk.foresee(replace(request, sampling=replace(request.sampling, max_output_tokens=tokens))).hold
            for tokens in (0, output)
        )
        written = whole.tokens - read.tokens
        if read.cost is None or whole.cost is None:
            return Hold(_typically(read.tokens) + written, None)
        return Hold(_typically(read.tokens) + written, _typically(read.cost) + whole.cost - read.cost)


def _typically(at_most: int) -> int:
    return ceil(at_most / TYPICAL_EXCESS)


def _quote(limits: Limits, expected: _Sum, at_most: _Sum, unpriced: tuple[str, ...]) -> Quote:
    cost_limit = picodollars(limits.max_cost_usd)
    most_tokens = min(at_most.tokens, limits.max_total_tokens)
    most_cost = min(at_most.cost, cost_limit)
    notices = []
    # Where a limit comes first, so large a part of what is expected is made.
    share = Fraction(1)
    if expected.tokens > limits.max_total_tokens:
        share = Fraction(limits.max_total_tokens, expected.tokens)
        notices.append(
            f"limits.max_total_tokens is {limits.max_total_tokens}, and {expected.tokens} would be expected: "
            "agents would end as over_budget."
        )
    if unpriced:
        named = ", ".join(repr(model) for model in unpriced)
        notices.append(
            f"The price of {named} is not known, so the cost is not either; with limits.max_cost_usd set it would be refused."
        )
    elif expected.cost > cost_limit:
        share = min(share, Fraction(cost_limit, expected.cost))
        notices.append(
            f"limits.max_cost_usd is {limits.max_cost_usd:g}, and {usd(expected.cost):.6g} US dollars would be expected: "
            "agents would end as over_budget."
        )
    return Quote(
        Amount(int(expected.calls * share), at_most.calls),
        Amount(int(expected.tokens * share), most_tokens),
        Amount(None, None) if unpriced else Amount(usd(int(expected.cost * share)), usd(most_cost)),
        tuple(notices),
    )
