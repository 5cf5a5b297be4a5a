"""Says what calls cost, in the same words wherever it stands: a model without a known price costs what is not known, never nothing."""

from __future__ import annotations

from application.ports.model_desk import ModelDesk
from application.ports.usage_reader import UsageItem
from application.services.price_check import first_request, has_price
from domain.counted import counted
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Limits, Usage
from domain.models.deliberation import Deliberation

__all__ = ["NOT_KNOWN", "cost_of_item", "cost_of_usage", "has_unknown_price", "money", "uncertain_of_item"]

NOT_KNOWN = "not known"
"""What the quote says too of a model without a price."""


def money(usd: float) -> str:
    """US dollars; of less than a hundredth so many digits as say something."""
    return f"${usd:,.2f}" if usd == 0 or usd >= 0.01 else f"${usd:.2g}"


def has_unknown_price(deliberation: Deliberation, desk: ModelDesk) -> bool:
    """Whether a model that its agents may be asked by has no price that is known now."""
    if deliberation.simulated:
        return False
    specification = deliberation.specification
    first_of = {agent.model: agent for agent in specification.roster.agents}
    for agent in first_of.values():
        try:
            if not has_price(desk, first_request(specification, agent, key_name=deliberation.key_name)):
                return True
        except AgentInvocationError:
            # A model that nobody knows any more has no price either.
            return True
    return False


def cost_of_usage(usage: Usage, limits: Limits, *, is_unpriced: bool) -> str:
    """What a deliberation cost so far, of what it may; what calls without a known end may have cost at most stands apart."""
    most = money(limits.max_cost_usd)
    uncertain = f", + {money(usage.uncertain_usd)} uncertain" if usage.uncertain_usd else ""
    if not is_unpriced:
        return f"{money(usage.cost_usd)} of {most}{uncertain}"
    if usage.cost_usd == 0 and not uncertain:
        return NOT_KNOWN
    return f"{money(usage.cost_usd)} of {most}{uncertain}, and what is {NOT_KNOWN}"


def cost_of_item(item: UsageItem) -> str:
    """What the calls of a sum cost, without what is uncertain."""
    if not item.unpriced_calls:
        return money(item.cost_usd)
    if item.cost_usd == 0 and item.unpriced_calls == item.calls:
        return NOT_KNOWN
    calls = counted(item.unpriced_calls, "call")
    return f"{money(item.cost_usd)}, and of {calls} {NOT_KNOWN}"


def uncertain_of_item(item: UsageItem) -> str:
    """What the calls of a sum may have taken besides: money, tokens where nobody knows their price, or nothing."""
    if item.uncertain_usd:
        return f"+ {money(item.uncertain_usd)} uncertain"
    return f"+ {item.uncertain_tokens:,} tokens uncertain" if item.uncertain_tokens else ""
