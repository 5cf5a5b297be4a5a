"""Along the models that one agent may be answered by: when the next one is asked, and where an agent goes on that was cut off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from application.ports.agent_orchestrator import AgentRequest

__all__ = ["FALLS_BACK", "resumed"]

# What the next model of a route is asked after; a ballot that cannot be read, and time that is over, are nobody else's to mend.
FALLS_BACK = frozenset(
    {
        "breaker_open",
        "throttled",
        "rate_limited",
        "quota_exhausted",
        "server_error",
        "provider_error",
        "connect_failed",
        "connection_lost",
        "unauthorised",
        "unknown_model",
        "not_found",
    }
)


def resumed(route: Sequence[str | None], request: AgentRequest) -> tuple[int, int]:
    """Where in the route an agent goes on that made calls before, and how many of them asked the model there."""
    if request.attempt == 1:
        return 0, 0
    earlier = request.earlier_models
    if not earlier or earlier[-1] not in route:
        return 0, request.attempt - 1
    return route.index(earlier[-1]), Counter(earlier)[earlier[-1]]
