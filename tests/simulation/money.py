"""What calls cost in a world, what was foreseen of them, and what the far end was paid at most."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from application.ports.agent_orchestrator import AgentRequest
from application.ports.deliberation_repository import LedgerCall, LedgerCharge
from application.ports.model_desk import Forecast
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Hold, picodollars, usd
from tests.simulation.scenarios import WORST_TOKENS, WORST_USD, Plan

__all__ = ["Bill", "SimulatedDesk", "unkept_budgets"]

_Call = tuple[str, int, str, int]


class Bill:
    """What the far end has answered, call by call, and therefore charges: in picodollars."""

    def __init__(self) -> None:
        self.paid: dict[_Call, int] = {}
        self.tokens: dict[_Call, int] = {}

    def charge(self, request: AgentRequest) -> Usage:
        """Answer a call: what it takes is the same in every run, and never more than the worst."""
        later = f" {request.round_number}" if request.round_number else ""
        chance = random.Random(f"{request.context.topic_content} {request.agent_id} {request.attempt}{later}")
        cost = chance.randint(1, picodollars(WORST_USD))
        usage = Usage(1, chance.randrange(WORST_TOKENS // 2), chance.randrange(WORST_TOKENS // 2), usd(cost))
        place = (request.context.topic_id, request.round_number, request.agent_id, request.attempt)
        self.paid[place] = self.paid.get(place, 0) + cost
        self.tokens[place] = self.tokens.get(place, 0) + usage.total_tokens
        return usage


class SimulatedDesk:
    """Where the calls of one process are announced: knows the worst of each, holds some back, and refuses some for a while."""

    paces = False

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans

    def route(self, model: str | None) -> Sequence[str | None]:
        """Members name how many models stand behind them."""
        return ("one/small", "two/large") if model == "both" else (model,)

    def foresee(self, request: AgentRequest) -> Forecast:
        """As much as any call takes."""
        told = f"{request.agent_id}: {request.context.topic_content}"
        return Forecast(request.model, told, Hold(WORST_TOKENS, picodollars(WORST_USD)), "1")

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> SimulatedDesk:
        """Some wait; the first model of some is not asked at present."""
        plan = self._plans[request.context.topic_content]
        number = int(request.agent_id.rpartition("-")[2])
        if plan.paced_s:
            await asyncio.sleep(plan.paced_s * (number % 3))
        if forecast.model == "one/small" and number % 4 == 3:
            raise AgentInvocationError("not at present", kind="breaker_open", usage=Usage())
        return self

    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """Nothing was taken for it."""


def unkept_budgets(
    bill: Bill,
    stored: Sequence[Deliberation],
    ledgers: Mapping[str, tuple[Sequence[LedgerCall], Sequence[LedgerCharge]]],
    key_day: int | None,
) -> Iterator[str]:
    """No budget was passed, nothing that was paid is missing in a ledger, and what is certain there was paid to the token."""
    by_day: dict[tuple[str, str], int] = defaultdict(int)
    for each in stored:
        calls, charges = ledgers[each.id]
        known = {(charge.round_number, charge.agent_id, charge.attempt): charge for charge in charges}
        paid = {place[1:]: cost for place, cost in bill.paid.items() if place[0] == each.id}
        taken = 0
        for call in calls:
            charge = known.pop((call.round_number, call.agent_id, call.attempt), None)
            was_paid = paid.pop((call.round_number, call.agent_id, call.attempt), 0)
            spent = held = call.held_cost or 0
            if charge is not None and charge.is_certain:
                if charge.cost != was_paid:
                    yield f"attempt {call.attempt} of {call.agent_id!r} is down for {charge.cost}, and {was_paid} was paid"
                spent = charge.cost or 0
            elif was_paid > held:
                yield f"attempt {call.attempt} of {call.agent_id!r} held {held}, and {was_paid} was paid"
            taken += spent
            by_day[each.key_name or "", call.day] += spent
        if known:
            yield f"{each.specification.question.text!r} has charges of calls that nobody intended: {sorted(known)}"
        if paid:
            yield f"{each.specification.question.text!r} has paid for calls that are not in its ledger: {sorted(paid)}"
        if taken > picodollars(each.specification.limits.max_cost_usd):
            yield f"{each.specification.question.text!r} has taken or held {usd(taken):g} USD, more than it may"
    for (key, _), taken in by_day.items():
        if key_day is not None and taken > key_day:
            yield f"the key {key!r} has taken or held {usd(taken):g} USD in a day, more than it may"
