"""A member that names a route is asked through its models in their order, and what each call took is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.model_desk import Forecast
from application.services.batch import Batch
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService, ConcurrentResult
from application.services.retry_policy import RetryPolicy
from domain.errors.agent import AgentInvocationError
from domain.models.agent_pool import AgentPool
from domain.models.budget import Usage
from domain.models.money import Hold
from domain.models.roll_call import AgentState
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.virtual_time import pass_time

CONTEXT = ContextBundle(topic_id="t-1", topic_content="Shall we?")
ROUTE = ("one/small", "two/medium", "three/large")

Script = Callable[[AgentRequest], AgentOutput]


class Desk:
    """Routes "all" to three models; refuses those in `shut`, and holds each call back for `waits_s`."""

    def __init__(self, *, paces: bool = True, waits_s: float = 0.0, shut: Sequence[str] = ()) -> None:
        self.paces = paces
        self.waits_s = waits_s
        self.shut = shut
        self.ended: list[tuple[str | None, Usage | None, str | None]] = []
        self.in_flight = 0

    def route(self, model: str | None) -> Sequence[str | None]:
        if model == "gone":
            raise AgentInvocationError("nobody knows it", kind="unknown_model", usage=Usage())
        return ROUTE if model == "all" else (model,)

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast(request.model, "told", Hold(100, 7))

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:
        if forecast.model in self.shut:
            raise AgentInvocationError("not at present", kind="breaker_open", usage=Usage())
        if until is not None and asyncio.get_running_loop().time() + self.waits_s > until:
            raise AgentInvocationError(
                "too late", kind="throttled", state=AgentState.THROTTLED, retryable=True, usage=Usage()
            )
        await pass_time(self.waits_s)
        self.in_flight += 1
        return Permit(self, forecast.model)


class Permit:
    def __init__(self, desk: Desk, model: str | None) -> None:
        self._desk = desk
        self._model = model

    def end(self, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        self._desk.in_flight -= 1
        self._desk.ended.append((self._model, usage, None if error is None else error.kind))


class Models:
    """Each model does what its script says, one call after the other; without one it answers after a second."""

    def __init__(self, **scripts: Sequence[object]) -> None:
        self._scripts = {name: list(script) for name, script in scripts.items()}
        self.asked: list[str | None] = []
        self.attempts: list[int] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.asked.append(request.model)
        self.attempts.append(request.attempt)
        script = self._scripts.get((request.model or "").partition("/")[0], [])
        await pass_time(1)
        step = script.pop(0) if script else "yes"
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await asyncio.Event().wait()
        return AgentOutput(
            request.agent_id, request.request_id, str(step), model=request.model, usage=Usage(1, 30, 4, 0.25)
        )


def _broken() -> AgentInvocationError:
    return AgentInvocationError("500", kind="server_error", retryable=True, usage=Usage())


def _throttled(after: float | None = None) -> AgentInvocationError:
    return AgentInvocationError(
        "429",
        kind="rate_limited",
        state=AgentState.THROTTLED,
        retryable=True,
        retry_after_s=after,
        usage=Usage(),
    )


async def _ask(
    models: Models,
    desk: Desk,
    *,
    model: str | None = "all",
    max_attempts: int = 2,
    timeout_s: float = 60,
    deadline_s: float | None = None,
    attempt: int = 1,
    earlier: tuple[str | None, ...] = (),
) -> ConcurrentResult:
    service = ConcurrentDeliberationService(
        orchestrator=models,
        halt_checker=HaltCheckerStub(),
        pool=AgentPool(72),
        retries=RetryPolicy(draw=lambda: 1.0),
        desk=desk,
    )
    deadline = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
    batch = Batch("b", agent_timeout_s=timeout_s, deadline=deadline)
    request = AgentRequest("a", CONTEXT, model=model, attempt=attempt, earlier_models=earlier)
    return await service.run_batch(batch, [request], max_attempts=max_attempts)


async def test_the_first_model_is_asked_and_nobody_else_where_it_answers() -> None:
    models, desk = Models(), Desk()
    (output,) = (await _ask(models, desk)).outputs
    assert (models.asked, output.model, output.fell_back) == (["one/small"], "one/small", False)
    assert desk.ended == [("one/small", Usage(1, 30, 4, 0.25), None)]


async def test_after_all_its_attempts_the_next_model_is_asked_under_the_next_number() -> None:
    models, desk = Models(one=[_broken(), _broken()]), Desk()
    (output,) = (await _ask(models, desk)).outputs
    assert models.asked == ["one/small", "one/small", "two/medium"]
    assert models.attempts == [1, 2, 3]
    assert (output.model, output.fell_back, output.attempt) == ("two/medium", True, 3)
    assert output.usage == Usage(3, 30, 4, 0.25)
    assert [kind for _, _, kind in desk.ended] == ["server_error", "server_error", None]


async def test_a_model_that_is_not_asked_at_present_costs_no_attempt() -> None:
    models, desk = Models(), Desk(shut=["one/small", "two/medium"])
    (output,) = (await _ask(models, desk)).outputs
    assert (models.asked, models.attempts, output.fell_back) == (["three/large"], [1], True)


async def test_where_no_model_is_left_the_last_reason_stands() -> None:
    models, desk = Models(three=[_broken(), _broken()]), Desk(shut=["one/small", "two/medium"])
    (failure,) = (await _ask(models, desk)).failures
    assert (failure.kind, failure.state, failure.attempts) == ("server_error", AgentState.FAILED, 2)
    assert failure.fell_back


async def test_an_unknown_model_is_not_asked_twice() -> None:
    unknown = AgentInvocationError("404", kind="unknown_model", usage=Usage())
    models = Models(one=[unknown])
    (output,) = (await _ask(models, Desk())).outputs
    assert (models.asked, output.fell_back) == (["one/small", "two/medium"], True)


@pytest.mark.parametrize(
    "error",
    [
        AgentInvocationError("no text", kind="empty_reply", state=AgentState.INVALID),
        AgentInvocationError("refused", kind="refused_by_provider"),
    ],
)
async def test_a_reply_that_is_no_ballot_is_no_reason_to_ask_another_model(error: AgentInvocationError) -> None:
    models = Models(one=[error])
    (failure,) = (await _ask(models, Desk())).failures
    assert (models.asked, failure.kind, failure.fell_back) == (["one/small"], error.kind, False)


async def test_a_hanging_model_uses_up_the_agents_time_and_no_other_is_asked() -> None:
    models, desk = Models(one=["hang"]), Desk()
    (failure,) = (await _ask(models, desk, timeout_s=5)).failures
    assert (models.asked, failure.state) == (["one/small"], AgentState.TIMED_OUT)
    assert failure.usage == Usage(1, uncertain_tokens=100, uncertain_usd=7e-12)
    assert desk.ended == [("one/small", None, "agent_timeout")]


async def test_a_call_that_is_given_up_says_nothing_about_its_model() -> None:
    models, desk = Models(one=["hang"]), Desk()
    (failure,) = (await _ask(models, desk, deadline_s=5)).failures
    assert failure.kind == "deadline"
    assert desk.ended == [("one/small", None, None)]


async def test_waiting_for_leave_costs_no_agent_its_time() -> None:
    models = Models(one=[_throttled()])
    began = asyncio.get_running_loop().time()
    (output,) = (await _ask(models, Desk(waits_s=50), timeout_s=3)).outputs
    assert asyncio.get_running_loop().time() - began == pytest.approx(102)
    assert (output.attempt, output.content) == (2, "yes")


async def test_what_was_left_of_its_time_goes_on_after_the_wait() -> None:
    models = Models(one=[_throttled(), "hang"])
    began = asyncio.get_running_loop().time()
    (failure,) = (await _ask(models, Desk(waits_s=50), timeout_s=3)).failures
    assert failure.state is AgentState.TIMED_OUT
    assert asyncio.get_running_loop().time() - began == pytest.approx(103)


async def test_a_desk_that_paces_is_the_only_one_to_wait_after_a_throttled_call() -> None:
    models = Models(one=[_throttled(after=30)])
    began = asyncio.get_running_loop().time()
    await _ask(models, Desk())
    assert asyncio.get_running_loop().time() - began == pytest.approx(2)
    began = asyncio.get_running_loop().time()
    await _ask(Models(one=[_throttled(after=30)]), Desk(paces=False))
    assert asyncio.get_running_loop().time() - began == pytest.approx(32.25)


async def test_who_is_to_come_back_after_its_whole_time_asks_the_next_model() -> None:
    models = Models(one=[_throttled(after=900)])
    (output,) = (await _ask(models, Desk(), timeout_s=120)).outputs
    assert (models.asked, output.fell_back) == (["one/small", "two/medium"], True)


async def test_leave_that_would_come_after_the_deadline_is_not_waited_for() -> None:
    models, desk = Models(), Desk(waits_s=50)
    began = asyncio.get_running_loop().time()
    (failure,) = (await _ask(models, desk, deadline_s=20)).failures
    assert asyncio.get_running_loop().time() == began
    assert (failure.kind, failure.state, failure.attempts) == ("throttled", AgentState.THROTTLED, 0)
    assert (models.asked, desk.in_flight, failure.usage) == ([], 0, Usage())


async def test_one_that_another_process_began_goes_on_where_it_was_in_the_route() -> None:
    models = Models(two=[_broken()])
    earlier = ("one/small", "one/small", "two/medium")
    (output,) = (await _ask(models, Desk(), attempt=4, earlier=earlier)).outputs
    assert models.asked == ["two/medium", "three/large"]
    assert models.attempts == [4, 5]
    assert output.fell_back


async def test_a_further_call_for_one_output_is_admitted_and_counted_like_any_other() -> None:
    desk = Desk()

    class Crew:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            assert request.next_call is not None
            numbers = [request.attempt]
            for _ in range(2):
                request = await request.next_call(Usage(1, 10, 1, 0.5))
                numbers.append(request.attempt)
            return AgentOutput("a", request.request_id, str(numbers), usage=Usage(1, 10, 1, 0.5))

    service = ConcurrentDeliberationService(orchestrator=Crew(), halt_checker=HaltCheckerStub(), desk=desk)
    output = await service.invoke_single(AgentRequest("a", CONTEXT, model="one/small"))
    assert (output.content, output.usage) == ("[1, 2, 3]", Usage(3, 30, 3, 1.5))
    assert (len(desk.ended), desk.in_flight) == (3, 0)


async def test_a_further_call_that_is_left_behind_ends_with_its_agent() -> None:
    desk = Desk()
    left: list[asyncio.Task[AgentRequest]] = []

    class Careless:
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            assert request.next_call is not None
            desk.waits_s = 100
            task = asyncio.ensure_future(request.next_call(None))
            left.append(task)
            await pass_time(1)
            return AgentOutput("a", request.request_id, "yes")

    service = ConcurrentDeliberationService(orchestrator=Careless(), halt_checker=HaltCheckerStub(), desk=desk)
    await service.invoke_single(AgentRequest("a", CONTEXT, model="one/small"))
    assert left[0].cancelled()
    assert desk.in_flight == 0


async def test_a_name_that_nobody_knows_any_more_is_the_failure_of_its_agent() -> None:
    models = Models()
    (failure,) = (await _ask(models, Desk(), model="gone")).failures
    assert (failure.kind, failure.attempts, models.asked) == ("unknown_model", 0, [])
