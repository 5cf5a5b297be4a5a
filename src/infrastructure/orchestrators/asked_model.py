"""A provider and a model as the desk knows them, and the leave for one call, which is given back to all that gave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from infrastructure.orchestrators.allowance import LimiterState
from infrastructure.orchestrators.breaker import Breaker, BreakerView, Passage
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_limiter import Place, ProviderLimiter
from infrastructure.orchestrators.provider_settings import ProviderSettings

__all__ = ["AskedModel", "AskedProvider", "CallPermit", "Client", "ModelView", "hear", "present_permit"]

_THROTTLED = "rate_limited"


class Client(Protocol):
    """The part of a `ProviderClient` that is needed here."""

    @property
    def host(self) -> str:
        """Whom it asks, as messages name it."""
        ...

    def prompt_of(self, request: AgentRequest) -> str:
        """What the agent is told."""
        ...

    def body_of(self, request: AgentRequest, *, model: str) -> bytes:
        """The request that would be sent."""
        ...

    async def complete(self, request: AgentRequest, *, model: str) -> AgentOutput:
        """One call. Raises `AgentInvocationError`."""
        ...

    async def find_models(self) -> list[str]:
        """The models that it offers. Raises `AgentInvocationError`."""
        ...

    async def close(self) -> None:
        """Drop all connections."""
        ...


@dataclass(frozen=True, slots=True)
class ModelView:
    """How a model stands that was asked at least once: by its full name, its limiter and its breaker."""

    name: str
    limiter: LimiterState
    breaker: BreakerView


class AskedProvider:
    """One provider: its client, and the limiter of what holds for all its models together, where something does."""

    __slots__ = ("client", "limiter", "settings")

    def __init__(self, settings: ProviderSettings, client: Client, limiter: ProviderLimiter | None) -> None:
        self.settings = settings
        self.client = client
        self.limiter = limiter

    def full_name(self, model: str) -> str:
        """How the record names that model of it."""
        return f"{self.settings.name}/{model}" if self.settings.name else model


class AskedModel:
    """One model of a provider, by its full name: what holds for it alone, and whether it is asked at present.

    `model` is what the provider calls it, None where that is not known yet.
    """

    __slots__ = ("breaker", "limiter", "model", "name", "provider")

    def __init__(
        self, name: str, provider: AskedProvider, model: str | None, limiter: ProviderLimiter, breaker: Breaker
    ) -> None:
        self.name = name
        self.provider = provider
        self.model = model
        self.limiter = limiter
        self.breaker = breaker

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting how it stands."""
        state = self.limiter.state
        return not (state.in_flight or state.waiting or state.requests or state.paused_s or self.breaker.is_open)


class CallPermit:
    """Leave of the limiters and the breaker for one call."""

    __slots__ = ("_forget", "_is_over", "_passage", "_places", "facts", "request_id")

    def __init__(
        self, request_id: UUID, places: Sequence[Place], passage: Passage, forget: Callable[[CallPermit], None]
    ) -> None:
        self.request_id = request_id
        self.facts: ReplyFacts | None = None
        self._places = places
        self._passage = passage
        self._forget = forget
        self._is_over = False

    def sent(self) -> None:
        """The request goes out now."""
        for place in self._places:
            place.sent()

    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """The call is over; `Usage()` without a call says that it was never made."""
        if self._is_over:
            return
        self._is_over = True
        self._forget(self)
        if error is not None:
            self._passage.ended(error)
        elif usage is not None and usage.calls:
            self._passage.succeeded()
        else:
            # Never made, or given up by whoever asked: nothing was learnt about the far end.
            self._passage.withdrawn()
            if usage is not None:
                for place in self._places:
                    place.withdraw()
                return
        tokens = None if usage is None else usage.total_tokens
        first, *others = self._places
        first.leave(
            tokens,
            throttled=error is not None and error.kind == _THROTTLED,
            retry_after_s=None if error is None else error.retry_after_s,
            headers=None if self.facts is None else self.facts.headers,
        )
        for place in others:
            place.leave(tokens)


present_permit: ContextVar[CallPermit | None] = ContextVar("permit", default=None)
"""The permit of the call that the task at hand makes."""


def hear(model: str, facts: ReplyFacts) -> None:  # noqa: ARG001 - each call tells of its own
    """Keep what a reply says of the pace with the permit of the call that the task at hand makes."""
    permit = present_permit.get()
    if permit is not None:
        permit.facts = facts
