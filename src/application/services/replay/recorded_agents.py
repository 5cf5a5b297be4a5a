"""Agents that answer from a record, and the desk that lets their calls be made as they were."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, Permit
from application.services.continuation import held_in
from application.services.replay.recorded_run import RecordedRun, Turn, usage_of
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.money import added
from domain.models.roll_call import AgentState

__all__ = ["STOPPED", "RecordedAgents", "RecordedDesk", "WritesPrompt", "known_usage"]

WritesPrompt = Callable[[AgentRequest, Mapping[str, Any]], str | None]
"""What an agent was told, written anew for the recorded intent; None where this version cannot."""

STOPPED = frozenset({AgentState.CANCELLED.value, AgentState.HALTED.value})
"""How an agent ends that did not end by itself."""

_NEAR = 8
_UNASKED = "(a model that was not asked)"


class RecordedAgents:
    """`AgentOrchestratorProtocol` over a record: each call ends as it did, and one that was cut off does not end.

    A call that the record does not have fails as `not_recorded`.
    """

    def __init__(self, run: RecordedRun) -> None:
        self._run = run

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """As in `AgentOrchestratorProtocol`, for all calls that were made for this output."""
        turn = (request.round_number, request.agent_id)
        while True:
            intents = self._run.intents(turn)
            if request.attempt > len(intents):
                raise AgentInvocationError("no such call is recorded", kind="not_recorded", usage=Usage())
            if request.attempt == len(intents):
                return await self._last(request, turn)
            following = intents[request.attempt]
            previous = following["previous"] or {"state": AgentState.FAILED.value, "kind": "interrupted"}
            usage = known_usage(previous.get("usage"))
            if previous["kind"] == "continued" and request.next_call is not None:
                # For one output more calls than one were made.
                request = await request.next_call(usage)
                continue
            raise AgentInvocationError(
                "as it was recorded",
                kind=previous["kind"],
                state=AgentState(previous["state"]),
                # Else another model of the route was asked next.
                retryable=not self._fell_back(turn) or following["model"] == intents[request.attempt - 1]["model"],
                usage=usage,
            )

    def _fell_back(self, turn: Turn) -> bool:
        return bool((self._run.find(("agent.ended", *turn)) or {}).get("fell_back"))

    async def _last(self, request: AgentRequest, turn: Turn) -> AgentOutput:
        end = self._run.find(("agent.ended", *turn))
        if end is None or end["state"] in STOPPED:
            await asyncio.Event().wait()
        assert end is not None  # noqa: S101 - nothing waits for ever and goes on
        usage = _last_usage(end, self._run.intents(turn))
        content = self._run.text(end["content"], "an agent's reply")
        if content is None:
            failure = end["failure"] or {}
            message = self._run.text(failure.get("message"), "a failure") or ""
            raise AgentInvocationError(
                message, kind=failure.get("kind", "unknown"), state=AgentState(end["state"]), usage=usage
            )
        return AgentOutput(
            request.agent_id,
            request.request_id,
            content,
            model=end["model"],
            usage=usage if usage is not None else Usage(1),
            truncated=bool(end.get("truncated", False)),
        )


class RecordedDesk:
    """`ModelDesk` over a record: routes, holds and prompts are those that were recorded, and whoever was not called is not."""

    paces = True

    def __init__(self, run: RecordedRun, *, write: WritesPrompt) -> None:
        self._run = run
        self._write = write
        self._routes = _routes(run)
        self._of_routes = frozenset(model for route in self._routes.values() for model in route)

    def route(self, model: str | None) -> Sequence[str | None]:
        """The models that were asked for members of that model."""
        return self._routes.get(model, (model,))

    def foresee(self, request: AgentRequest) -> Forecast:
        """The call as it was announced."""
        intent = self._intent(request)
        if intent is None:
            return Forecast(request.model)
        prompt = None if intent["prompt"] is None else self._write(request, intent)
        return Forecast(intent["model"], prompt, held_in(intent), intent.get("prompt_version"))

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:  # noqa: ARG002
        """At once where the call was made; else as the agent ended without it."""
        intent = self._intent(request)
        if intent is not None and (intent["model"] == request.model or request.model not in self._of_routes):
            return _PERMIT
        if intent is not None:
            raise AgentInvocationError("another model was asked", kind="breaker_open", usage=Usage())
        turn = (request.round_number, request.agent_id)
        end = self._run.find(("agent.ended", *turn))
        if end is None or end["state"] in STOPPED:
            await asyncio.Event().wait()
        assert end is not None  # noqa: S101 - nothing waits for ever and goes on
        failure = end["failure"] or {}
        message = self._run.text(failure.get("message"), "a failure") or ""
        raise AgentInvocationError(
            message, kind=failure.get("kind", "not_recorded"), state=AgentState(end["state"]), usage=Usage()
        )

    def _intent(self, request: AgentRequest) -> Mapping[str, Any] | None:
        return self._run.find(("call.intended", request.round_number, request.agent_id, request.attempt))


class _FreePermit:
    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """Nothing to give back."""


_PERMIT = _FreePermit()


def _routes(run: RecordedRun) -> dict[str | None, tuple[str | None, ...]]:
    """For each model that a member names and that stood for several, those that were asked, in the order in which they were.

    Members of any other model are asked at that one, under whatever name it was known when its calls were recorded.
    """
    named = {agent.id: agent.model for agent in run.deliberation.specification.roster.agents}
    first: dict[str | None, dict[str | None, None]] = {}
    later: dict[str | None, dict[str | None, None]] = {}
    for document in run.documents:
        if document["type"] != "agent.ended":
            continue
        asked = [intent["model"] for intent in run.intents((document["round"], document["agent_id"]))]
        model = named.get(document["agent_id"])
        if document.get("fell_back"):
            # The one before may not have been asked at all, because it kept failing for others.
            first.setdefault(model, {}).update(dict.fromkeys(asked[:1] if len(set(asked)) > 1 else ()))
            later.setdefault(model, {}).update(dict.fromkeys(asked))
        else:
            first.setdefault(model, {}).update(dict.fromkeys(asked))
    return {
        model: tuple(dict.fromkeys([*(first.get(model) or [_UNASKED]), *others])) for model, others in later.items()
    }


def known_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """What a call took, or None where that was not known."""
    if usage is None:
        return None
    found = usage_of(usage)
    return None if found.uncertain_tokens or found.uncertain_usd else found


def _last_usage(end: Mapping[str, Any], intents: Sequence[Mapping[str, Any]]) -> Usage | None:
    """What the last call took: all of them but those before; added to those, it makes the recorded sum again."""
    whole = usage_of(end["usage"])
    before = Usage()
    for intent in intents[1:]:
        before += usage_of((intent["previous"] or {}).get("usage") or _NO_USAGE)
    if whole.uncertain_tokens > before.uncertain_tokens or whole.uncertain_usd > before.uncertain_usd:
        return None
    near = added(whole.cost_usd, -before.cost_usd)
    for _ in range(_NEAR):
        together = added(before.cost_usd, near)
        if together == whole.cost_usd:
            break
        near = math.nextafter(near, math.inf if together < whole.cost_usd else -math.inf)
    return Usage(
        whole.calls - before.calls,
        whole.input_tokens - before.input_tokens,
        whole.output_tokens - before.output_tokens,
        near,
    )


_NO_USAGE: Mapping[str, Any] = {"calls": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": 0.0}
