"""A desk for tests: routes and prices as they are told, and every prompt so many tokens long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from application.ports.agent_orchestrator import AgentRequest
from application.ports.model_desk import Forecast, NullModelDesk
from domain.errors.agent import AgentInvocationError
from domain.models.money import Hold, Price

__all__ = ["PricedDesk"]


class PricedDesk(NullModelDesk):
    """Knows the models of `prices`, those with None without a price; admits at once."""

    def __init__(
        self,
        prices: Mapping[str | None, Price | None],
        *,
        routes: Mapping[str, Sequence[str]] | None = None,
        prompt_tokens: int = 1_000,
    ) -> None:
        self._prices = prices
        self._routes = routes or {}
        self._prompt_tokens = prompt_tokens
        self.foreseen: list[AgentRequest] = []

    def route(self, model: str | None) -> Sequence[str | None]:
        """The route of that name, or the model alone. Raises `AgentInvocationError` for one that it does not know."""
        route = self._routes.get(model or "", (model,))
        if any(each not in self._prices for each in route):
            raise AgentInvocationError(f"nobody knows {model!r}", kind="unknown_model")
        return route

    def foresee(self, request: AgentRequest) -> Forecast:
        """The prompt's tokens in, and all the output that the request allows."""
        self.foreseen.append(request)
        price = self._prices[request.model]
        output = request.sampling.max_output_tokens
        cost = None if price is None else price.of(self._prompt_tokens, output)
        return Forecast(request.model, "prompt", Hold(self._prompt_tokens + output, cost))
