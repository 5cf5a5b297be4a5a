"""A desk over fake clients, with everything behind it in reach, and the calls that tests make at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.money import Price
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.allowance import Allowance
from infrastructure.orchestrators.breaker import Breaker
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.prices import PriceList
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_limiter import ProviderLimiter
from infrastructure.orchestrators.provider_settings import ProviderSettings

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no"))
PRICE = Price(150_000, 600_000)
OPENAI = ProviderSettings("openai", "https://api.openai.com/v1", models=("small", "team/large"))
LOCAL = ProviderSettings("local", "http://127.0.0.1:8080/v1")
NAMELESS = ProviderSettings("", "http://127.0.0.1:8080/v1")


class FakeClient:
    """Answers at once, or as it is told; writes requests as the real one does."""

    def __init__(self, settings: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> None:
        self.host = settings.name or "host.example"
        self.asked: list[str] = []
        self.lookups = 0
        self.bodies = 0
        self.closed = False
        self.models = ["first", "second"]
        self.answered_as: str | None = None
        self.error: AgentInvocationError | None = None
        self.facts: ReplyFacts | None = None
        self._heard = heard
        self._writer = ChatRequestWriter()

    def prompt_of(self, request: AgentRequest) -> str:
        return self._writer.prompt(request)

    def body_of(self, request: AgentRequest, *, model: str) -> bytes:
        self.bodies += 1
        return self._writer.write(request, model=model, dialect=Dialect())

    async def complete(self, request: AgentRequest, *, model: str) -> AgentOutput:
        self.asked.append(model)
        await asyncio.sleep(0)
        if self.facts is not None:
            self._heard(model, self.facts)
        if self.error is not None:
            raise self.error
        usage = Usage(1, 100, 20)
        return AgentOutput(request.agent_id, request.request_id, "yes", model=self.answered_as or model, usage=usage)

    async def find_models(self) -> list[str]:
        self.lookups += 1
        return self.models

    async def close(self) -> None:
        self.closed = True


class Desk:
    """A desk over fake clients, with what is behind it."""

    def __init__(self, *providers: ProviderSettings, prices: Mapping[str, Price] | None = None, **more: Any) -> None:
        self.clients: dict[str, FakeClient] = {}
        self.limiters: dict[str, ProviderLimiter] = {}
        self.breakers: dict[str, Breaker] = {}
        self.desk = ProviderDesk(
            providers or (OPENAI, LOCAL),
            client_of=self._client,
            limiter_of=self._limiter,
            breaker_of=self._breaker,
            prices=PriceList(prices, look_up=lambda *_: None),
            **more,
        )

    def _client(self, settings: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> FakeClient:
        return self.clients.setdefault(settings.name, FakeClient(settings, heard))

    def _limiter(self, name: str, allowance: Allowance) -> ProviderLimiter:
        return self.limiters.setdefault(name, ProviderLimiter(name, allowance))

    def _breaker(self, name: str) -> Breaker:
        return self.breakers.setdefault(name, Breaker(name))

    async def call(self, request: AgentRequest, *, until: float | None = None) -> AgentOutput:
        """One call as the fan-out makes it."""
        permit = await self.desk.admit(request, self.desk.foresee(request), until=until)
        try:
            output = await self.desk.invoke(request)
        except AgentInvocationError as error:
            permit.end(error.usage, error)
            raise
        permit.end(output.usage)
        return output


CONTEXT = ContextBundle("t", "Should the city centre be closed to private cars?", "Trams run every ten minutes.")


def asking(model: str | None = "openai/small", **more: Any) -> AgentRequest:
    """One agent's request to that model or route; whatever is asked in more of its fields."""
    return AgentRequest("archon-1", CONTEXT, model=model, expected=CHOICE, persona="A baker.", batch_id="b", **more)
