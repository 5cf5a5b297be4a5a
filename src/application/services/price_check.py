"""Refuses members whose models nobody knows, or has no price for where money is limited, before anything is accepted or quoted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.ports.model_desk import ModelDesk
from domain.errors.agent import AgentInvocationError
from domain.errors.deliberation import FieldProblem, InvalidSpecificationError
from domain.models.agent import Agent
from domain.models.deliberation import Specification
from domain.models.money import KeyBudget
from domain.models.spending import budget_of

__all__ = ["first_request", "has_price", "require_prices"]

_UNKNOWN = "names no model and no route that is known here"
_UNPRICED = "asks a model without a known price, so no limit on money could be kept: set none, or give it a price in the providers file"


def first_request(specification: Specification, agent: Agent, *, key_name: str | None) -> AgentRequest:
    """The request of an agent's first call in the blind round, as far as it is known before the deliberation has an id."""
    question = specification.question
    return AgentRequest(
        agent.id,
        ContextBundle("", question.text, question.context),
        persona=agent.persona.text,
        model=agent.model,
        expected=question.answer,
        sampling=specification.sampling,
        seed=specification.seed,
        key_name=key_name,
    )


def has_price(desk: ModelDesk, request: AgentRequest) -> bool:
    """Whether every model that is asked for this request has a known price. Raises `AgentInvocationError` where one is not known at all."""
    holds = [desk.foresee(replace(request, model=model)).hold for model in desk.route(request.model)]
    return all(hold.cost is not None for hold in holds)


def require_prices(
    specification: Specification, desk: ModelDesk, *, budgets: Mapping[str, KeyBudget], key_name: str | None
) -> None:
    """Raise `InvalidSpecificationError` naming each member whose model cannot be asked.

    A model of its route without a known price cannot be asked where the request limits money itself, or its key has one of the
    `budgets` (by name, `*` for all others): what a call of it may take is not known, so nothing could be held for it.
    """
    budget = budget_of(budgets, key_name or "")
    is_bounded = budget is not None and (budget.day is not None or budget.month is not None)
    needs_price = is_bounded or specification.limits.has_money_limit
    judged: dict[str | None, str | None] = {}
    problems = []
    for number, agent in enumerate(specification.roster.agents):
        if agent.model not in judged:
            request = first_request(specification, agent, key_name=key_name)
            judged[agent.model] = _problem(desk, request, needs_price=needs_price)
        problem = judged[agent.model]
        if problem is not None:
            problems.append(FieldProblem(_pointer(specification, number), problem))
    if problems:
        # Members of a roster that is known by name share a pointer, and each problem is told once.
        raise InvalidSpecificationError(list(dict.fromkeys(problems)))


def _pointer(specification: Specification, number: int) -> str:
    return "/agents/roster" if specification.roster.name else f"/agents/members/{number}/model"


def _problem(desk: ModelDesk, request: AgentRequest, *, needs_price: bool) -> str | None:
    try:
        is_priced = has_price(desk, request)
    except AgentInvocationError as error:
        # A refusal repeats nothing of the request, whoever words it.
        return _UNKNOWN if request.model is not None and request.model in error.message else error.message
    return _UNPRICED if needs_price and not is_priced else None
