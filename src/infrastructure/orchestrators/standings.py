"""How a provider or a model stands, put into the words of the port from its limiter and its breaker."""

from __future__ import annotations

from dataclasses import replace

from application.ports.provider_standing import ProviderStanding
from infrastructure.orchestrators.allowance import Allowance, LimiterState
from infrastructure.orchestrators.breaker import BreakerView

__all__ = ["standing_of", "with_breaker"]


def standing_of(name: str, allowance: Allowance, state: LimiterState | None) -> ProviderStanding:
    """What is allowed, and what is used of it; without a limiter nothing is counted."""
    found = ProviderStanding(
        name,
        max_concurrency=allowance.max_concurrency,
        requests_per_minute=allowance.requests_per_minute,
        tokens_per_minute=allowance.tokens_per_minute,
    )
    if state is None:
        return found
    return replace(
        found,
        in_flight=state.in_flight,
        waiting=state.waiting,
        requests=state.requests,
        tokens=state.tokens,
        pace=state.pace,
        paused_s=state.paused_s,
        shared=state.shared,
    )


def with_breaker(standing: ProviderStanding, view: BreakerView) -> ProviderStanding:
    """The same, with whether it is asked at present."""
    return replace(
        standing,
        breaker=view.state.value,
        failures=view.failures,
        opens_in_s=view.opens_in_s,
        cause=view.cause,
    )
