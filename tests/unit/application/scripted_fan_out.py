"""A fan-out over an orchestrator that does for each agent what a test says, and one who watches its attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.model_desk import Forecast
from application.services.batch import AttemptEnd, CallEnd
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService, ConcurrentResult
from application.services.retry_policy import RetryPolicy
from domain.models.agent_output import AgentFailure
from domain.models.agent_pool import AgentPool
from domain.models.roll_call import AgentState
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.virtual_time import pass_time, time_passed

__all__ = ["CONTEXT", "Scripted", "Witness", "hanging", "only_failure", "raising", "requests", "service"]


CONTEXT = ContextBundle(topic_id="t-1", topic_content="Should the city centre be closed to private cars?")


def requests(count: int, prefix: str = "archon") -> list[AgentRequest]:
    return [AgentRequest(agent_id=f"{prefix}-{n}", context=CONTEXT) for n in range(count)]


class Scripted:
    """An orchestrator that does for each agent what the test says; anyone else answers after one second."""

    def __init__(self, **scripts: Callable[[AgentRequest], object]) -> None:
        self.scripts = {name.replace("_", "-"): script for name, script in scripts.items()}
        self.attempts: dict[str, list[float]] = {}
        self.active = 0
        self.peak = 0

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.attempts.setdefault(request.agent_id, []).append(time_passed())
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            script = self.scripts.get(request.agent_id)
            if script is None:
                await pass_time(1)
                return AgentOutput(request.agent_id, request.request_id, f"answer of {request.agent_id}")
            result = script(request)
            if asyncio.iscoroutine(result):
                result = await result
            return result  # type: ignore[return-value]
        finally:
            self.active -= 1


def raising(*errors: BaseException) -> Callable[[AgentRequest], AgentOutput]:
    """Raise these errors, one an attempt, then answer."""
    left = list(errors)

    def script(request: AgentRequest) -> AgentOutput:
        if left:
            raise left.pop(0)
        return AgentOutput(request.agent_id, request.request_id, "at last")

    return script


async def hanging(_: AgentRequest) -> AgentOutput:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")


def service(
    orchestrator: object, *, slots: int = 72, halt: HaltCheckerStub | None = None, max_waiting: int = 7_200
) -> ConcurrentDeliberationService:
    return ConcurrentDeliberationService(
        orchestrator=orchestrator,  # type: ignore[arg-type]
        halt_checker=halt or HaltCheckerStub(),
        pool=AgentPool(max_concurrent=slots),
        retries=RetryPolicy(draw=lambda: 1.0),
        max_waiting=max_waiting,
    )


def only_failure(result: ConcurrentResult) -> tuple[str, str, AgentState, int]:
    (failure,) = result.failures
    return failure.agent_id, failure.kind, failure.state, failure.attempts


class Witness:
    """Notes what it is told of, and takes as long as a test says over each start."""

    def __init__(self, *, takes_s: float = 0.0) -> None:
        self.started: list[tuple[str, int, AttemptEnd | None]] = []
        self.ended: list[tuple[str, str]] = []
        self.held = 0
        self._takes_s = takes_s

    async def reserve(self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None) -> None:
        self.held += 1

    def give_back(self, forecast: Forecast) -> None:
        self.held -= 1

    async def agent_starting(
        self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None
    ) -> None:
        await pass_time(self._takes_s)
        self.started.append((request.agent_id, request.attempt, previous))

    async def agent_ended(
        self, request: AgentRequest, ending: AgentOutput | AgentFailure, last: CallEnd | None = None
    ) -> AgentState:
        self.ended.append((request.agent_id, ending.kind if isinstance(ending, AgentFailure) else "answer"))
        return ending.state if isinstance(ending, AgentFailure) else AgentState.ANSWERED
