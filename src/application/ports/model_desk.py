"""The port that knows the models: which to ask in which order, what a call takes at most, and when it may be made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from application.ports.agent_orchestrator import AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.money import Hold

__all__ = ["Forecast", "ModelDesk", "NullModelDesk", "Permit"]


@dataclass(frozen=True, slots=True)
class Forecast:
    """A call before it is made: the model that is asked, as it is recorded, what it is told, and what that takes at most.

    `model` is None where the orchestrator does not say whom it asks, `prompt` where it does not say what. `prompt_version` names the
    words that were put around the texts of others.
    """

    model: str | None = None
    prompt: str | None = None
    hold: Hold = field(default_factory=Hold)
    prompt_version: str | None = None


class Permit(Protocol):
    """Leave to make one call now. It is ended once, whatever became of the call; until then the call counts as in flight."""

    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """The call is over: what it took, None where nobody knows, and what went wrong with it. Neither waits nor raises."""
        ...


class ModelDesk(Protocol):
    """Where each call to a model is announced before it is made. One for all orchestrators of a process.

    `paces` says that it holds back itself who was answered "too fast", so that nobody else has to wait for that.
    """

    paces: bool

    def route(self, model: str | None) -> Sequence[str | None]:
        """The models to ask, in this order, for a member that names `model`; at least one.

        Raises `AgentInvocationError` of kind `unknown_model`.
        """
        ...

    def foresee(self, request: AgentRequest) -> Forecast:
        """What the call of this request will be; `request.model` is one of a route. Costs no wait and spends nothing.

        Raises `AgentInvocationError` of kind `unknown_model`.
        """
        ...

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:
        """Wait for leave to make the call, fair between API keys and between batches.

        Raises `AgentInvocationError`: of kind `breaker_open` where the model is not asked at present, of kind `throttled`
        (state `throttled`) as soon as a limit is known to keep it back past `until` (a monotonic time, seconds), and of kind
        `deadline` (state `timed_out`) once that has come.
        A wait that is cancelled leaves nothing behind.
        """
        ...


class NullModelDesk:
    """Holds nothing back and knows no price: each member's own model is asked, at once."""

    paces = False

    def route(self, model: str | None) -> Sequence[str | None]:
        """That model alone."""
        return (model,)

    def foresee(self, request: AgentRequest) -> Forecast:
        """The model of the request, and nothing else."""
        return _UNKNOWN if request.model is None else Forecast(request.model)

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:  # noqa: ARG002
        """At once."""
        return _PERMIT


class _FreePermit:
    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """Nothing to give back."""


_PERMIT = _FreePermit()
_UNKNOWN = Forecast()
