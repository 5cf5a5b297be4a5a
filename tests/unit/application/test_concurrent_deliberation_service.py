"""The fan-out, in virtual time: every agent accounted for, none disturbed by another, a halt that stops everything."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

import application.services
from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.metrics import NullMetrics
from application.ports.model_desk import Forecast
from application.services.batch import AttemptEnd, Batch, CallEnd, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService, ConcurrentResult
from application.services.retry_policy import RetryPolicy
from domain.errors.agent import AgentAlreadyActiveError, AgentInvocationError, AgentPoolExhaustedError
from domain.errors.halt import SystemHaltedError
from domain.models.agent_output import AgentFailure
from domain.models.agent_pool import AgentPool
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub

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
        self.attempts.setdefault(request.agent_id, []).append(asyncio.get_running_loop().time())
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            script = self.scripts.get(request.agent_id)
            if script is None:
                await asyncio.sleep(1)
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


async def test_every_request_ends_as_an_output_or_a_failure_in_the_order_asked() -> None:
    result = await service(AgentOrchestratorStub(failing={"archon-3", "archon-7"})).invoke_concurrent(requests(10))
    assert [output.agent_id for output in result.outputs] == [f"archon-{n}" for n in range(10) if n not in (3, 7)]
    assert result.failed_agents == ("archon-3", "archon-7")
    assert (result.success_count, result.failure_count, result.total_count) == (8, 2, 10)


async def test_the_batch_takes_as_long_as_its_slowest_agent() -> None:
    result = await service(AgentOrchestratorStub(latency_seconds=10)).invoke_concurrent(requests(72))
    assert result.total_ms == pytest.approx(10_000)
    assert result.completed_at >= result.started_at


async def test_nobody_asked_is_an_empty_result() -> None:
    result = await service(AgentOrchestratorStub()).invoke_concurrent([])
    assert (result.total_count, result.total_ms) == (0, 0)


async def test_outputs_carry_their_batch_and_attempt() -> None:
    result = await service(AgentOrchestratorStub()).invoke_concurrent(requests(2))
    assert {output.batch_id for output in result.outputs} == {result.batch_id}
    assert {output.attempt for output in result.outputs} == {1}


async def test_a_failure_names_kind_message_attempts_and_duration() -> None:
    error = AgentInvocationError("refused", kind="unauthorised", state=AgentState.FAILED)

    async def slow_refusal(_: AgentRequest) -> AgentOutput:
        await asyncio.sleep(2)
        raise error

    (failure,) = (await service(Scripted(archon_0=slow_refusal)).invoke_concurrent(requests(3))).failures
    assert (failure.kind, failure.message, failure.attempts) == ("unauthorised", "refused", 1)
    assert failure.duration_seconds == pytest.approx(2)


@pytest.mark.parametrize(
    "raised", [ValueError("boom"), KeyError("k"), ExceptionGroup("g", [OSError()]), RuntimeError()]
)
async def test_whatever_an_orchestrator_raises_becomes_that_agents_failure(raised: Exception) -> None:
    result = await service(Scripted(archon_1=raising(raised))).invoke_concurrent(requests(3))
    assert only_failure(result) == ("archon-1", "unexpected_error", AgentState.FAILED, 1)
    assert type(raised).__name__ in result.failures[0].message


async def test_a_call_that_cancels_itself_is_a_failure_not_a_lost_agent() -> None:
    result = await service(Scripted(archon_1=raising(asyncio.CancelledError()))).invoke_concurrent(requests(3))
    assert only_failure(result) == ("archon-1", "cancelled_itself", AgentState.FAILED, 1)


async def test_a_timeout_inside_the_call_is_told_apart_from_the_agents_deadline() -> None:
    result = await service(Scripted(archon_1=raising(TimeoutError("read")))).invoke_concurrent(requests(3))
    assert only_failure(result) == ("archon-1", "timeout", AgentState.TIMED_OUT, 1)


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        (None, "bad_output"),
        ("text", "bad_output"),
        (AgentOutput("archon-1", uuid4(), "x"), "foreign_output"),
        (AgentOutput("archon-2", uuid4(), "x"), "foreign_output"),
    ],
)
async def test_what_is_no_output_of_that_request_is_a_failure(returned: object, kind: str) -> None:
    result = await service(Scripted(archon_1=lambda _: returned)).invoke_concurrent(requests(3))
    assert only_failure(result) == ("archon-1", kind, AgentState.FAILED, 1)


async def test_an_output_is_cut_at_64_kib_and_marked_and_made_storable() -> None:
    def huge(request: AgentRequest) -> AgentOutput:
        return AgentOutput(request.agent_id, request.request_id, "\x00\ud800" + "\u20ac" * 100_000)

    result = await service(Scripted(archon_0=huge)).invoke_concurrent(requests(1))
    (output,) = result.outputs
    assert output.truncated
    assert len(output.content.encode()) <= 64 * 1024
    assert output.content.startswith("\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\u20ac")


async def test_a_hanging_agent_is_timed_out_and_delays_nobody_elses_slot() -> None:
    orchestrator = Scripted(archon_0=hanging)
    fan_out = service(orchestrator)
    result = await fan_out.invoke_concurrent(requests(5), agent_timeout_s=120)
    assert only_failure(result) == ("archon-0", "agent_timeout", AgentState.TIMED_OUT, 1)
    assert {output.duration_seconds for output in result.outputs} == {1.0}
    assert (orchestrator.active, fan_out.pool.active_count) == (0, 0)


async def test_waiting_for_a_slot_never_counts_against_an_agents_deadline() -> None:
    result = await service(Scripted(), slots=1).invoke_concurrent(requests(1), agent_timeout_s=1.5)
    assert result.failure_count == 0
    fan_out = service(Scripted(), slots=2)
    batch = Batch("b", agent_timeout_s=1.5)
    waited = await fan_out.run_batch(batch, requests(10), max_attempts=1)
    assert waited.failure_count == 0
    assert waited.total_ms == pytest.approx(5_000)


async def test_the_agents_time_covers_all_attempts_together() -> None:
    async def slow_then_reset(_: AgentRequest) -> AgentOutput:
        await asyncio.sleep(2)
        raise AgentInvocationError("reset", kind="connection_lost", retryable=True)

    result = await service(Scripted(archon_0=slow_then_reset)).invoke_concurrent(
        requests(1), agent_timeout_s=3, max_attempts=5
    )
    assert only_failure(result) == ("archon-0", "agent_timeout", AgentState.TIMED_OUT, 2)
    assert result.total_ms == pytest.approx(3_000)


async def test_the_deadline_of_the_batch_times_out_whoever_has_not_ended() -> None:
    fan_out = service(Scripted(archon_0=hanging, archon_1=hanging), slots=3)
    result = await fan_out.invoke_concurrent(requests(3), deadline_s=10)
    assert [(f.agent_id, f.kind, f.state) for f in result.failures] == [
        ("archon-0", "deadline", AgentState.TIMED_OUT),
        ("archon-1", "deadline", AgentState.TIMED_OUT),
    ]
    assert result.total_ms == pytest.approx(10_000)


async def test_an_agent_that_never_got_a_slot_before_the_deadline_made_no_attempt() -> None:
    fan_out = service(Scripted(archon_0=hanging), slots=1)
    result = await fan_out.run_batch(Batch("b", agent_timeout_s=120, deadline=5), requests(2), max_attempts=2)
    assert [(f.agent_id, f.kind, f.attempts) for f in result.failures] == [
        ("archon-0", "deadline", 1),
        ("archon-1", "deadline", 0),
    ]
    assert (fan_out.pool.active_count, fan_out.waiting_count) == (0, 0)


@pytest.mark.parametrize(("agent_timeout", "deadline"), [(5.0, 3.0), (3.0, 5.0), (3.0, None)])
async def test_limits_fall_due_in_turn_whichever_comes_first(agent_timeout: float, deadline: float | None) -> None:
    # Two slots: archon-2 begins when archon-1 ends at 1 s, so its own limit falls due one second after archon-0's.
    fan_out = service(Scripted(archon_0=hanging, archon_2=hanging), slots=2)
    batch = Batch("b", agent_timeout_s=agent_timeout, deadline=deadline)
    result = await fan_out.run_batch(batch, requests(3), max_attempts=1)
    durations = {f.agent_id: f.duration_seconds for f in result.failures}
    last = agent_timeout if deadline is None else min(agent_timeout, deadline - 1)
    assert durations == {
        "archon-0": pytest.approx(min(agent_timeout, deadline or 99)),
        "archon-2": pytest.approx(last),
    }


async def test_a_retryable_failure_is_tried_again_with_back_off() -> None:
    reset = AgentInvocationError("reset", kind="connection_lost", retryable=True)
    orchestrator = Scripted(archon_0=raising(reset))
    result = await service(orchestrator).invoke_concurrent(requests(1))
    assert (result.outputs[0].content, result.outputs[0].attempt) == ("at last", 2)
    assert orchestrator.attempts["archon-0"] == [0, pytest.approx(0.25)]


async def test_attempts_end_at_the_limit_and_are_counted() -> None:
    resets = [AgentInvocationError("reset", kind="connection_lost", retryable=True) for _ in range(9)]
    result = await service(Scripted(archon_0=raising(*resets))).invoke_concurrent(requests(1), max_attempts=3)
    assert only_failure(result) == ("archon-0", "connection_lost", AgentState.FAILED, 3)


async def test_what_is_not_retryable_is_not_tried_again() -> None:
    orchestrator = Scripted(archon_0=raising(AgentInvocationError("no key", kind="unauthorised")))
    await service(orchestrator).invoke_concurrent(requests(1), max_attempts=5)
    assert len(orchestrator.attempts["archon-0"]) == 1


async def test_the_time_that_the_far_end_asks_for_is_waited() -> None:
    slow_down = AgentInvocationError(
        "429", kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=7
    )
    orchestrator = Scripted(archon_0=raising(slow_down))
    await service(orchestrator).invoke_concurrent(requests(1))
    assert orchestrator.attempts["archon-0"][1] == pytest.approx(7.25)


async def test_a_wait_longer_than_the_agent_has_left_is_not_begun() -> None:
    slow_down = AgentInvocationError(
        "429", kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=500
    )
    result = await service(Scripted(archon_0=raising(slow_down))).invoke_concurrent(requests(1))
    assert only_failure(result) == ("archon-0", "rate_limited", AgentState.THROTTLED, 1)
    assert result.total_ms == 0


async def test_more_requests_than_slots_are_refused_whole() -> None:
    orchestrator = AgentOrchestratorStub()
    fan_out = service(orchestrator)
    with pytest.raises(AgentPoolExhaustedError, match="FR10") as refused:
        await fan_out.invoke_concurrent(requests(73))
    assert (refused.value.requested, refused.value.capacity) == (73, 72)
    assert (orchestrator.invocations, fan_out.pool.active_count) == (0, 0)


async def test_the_same_agent_twice_in_a_batch_is_refused_whole() -> None:
    orchestrator = AgentOrchestratorStub()
    with pytest.raises(AgentAlreadyActiveError):
        await service(orchestrator).invoke_concurrent([*requests(3), *requests(1)])
    assert orchestrator.invocations == 0


async def test_more_waiting_agents_than_allowed_are_refused_whole() -> None:
    orchestrator = Scripted()
    fan_out = service(orchestrator, slots=2, max_waiting=3)
    first = asyncio.create_task(fan_out.run_batch(Batch("a", agent_timeout_s=9), requests(5), max_attempts=1))
    await asyncio.sleep(0.5)
    with pytest.raises(AgentPoolExhaustedError):
        await fan_out.run_batch(Batch("b", agent_timeout_s=9), requests(1), max_attempts=1)
    assert (await first).success_count == 5


async def test_two_batches_with_the_same_agents_do_not_disturb_each_other() -> None:
    fan_out = service(Scripted(), slots=144)
    one, two = await asyncio.gather(*(fan_out.invoke_concurrent(requests(72)) for _ in range(2)))
    assert (one.success_count, two.success_count) == (72, 72)
    assert one.batch_id != two.batch_id
    assert one.total_ms == two.total_ms == pytest.approx(1_000)


async def test_never_more_agents_are_active_than_there_are_slots() -> None:
    orchestrator = Scripted()
    fan_out = service(orchestrator, slots=7)
    await asyncio.gather(*(fan_out.invoke_concurrent(requests(7)) for _ in range(5)))
    assert orchestrator.peak == 7
    assert fan_out.pool.active_count == 0


async def test_waiting_batches_take_turns_so_that_a_small_one_is_not_stuck_behind_large_ones() -> None:
    fan_out = service(Scripted(), slots=4)
    large = [
        asyncio.create_task(fan_out.run_batch(Batch(f"large-{n}", agent_timeout_s=99), requests(40), max_attempts=1))
        for n in range(3)
    ]
    await asyncio.sleep(0.5)
    small = await fan_out.run_batch(Batch("small", agent_timeout_s=99), requests(2), max_attempts=1)
    # Four slots a second, four batches in turn: the small one needs two rounds of turns and no more.
    assert small.total_ms <= 3_500
    assert sum(task.done() for task in large) == 0
    await asyncio.gather(*large)


async def test_a_slot_given_back_on_the_pool_itself_reaches_whoever_waits() -> None:
    fan_out = service(Scripted(), slots=1)
    fan_out.pool.acquire("somebody else")
    waiting = asyncio.create_task(fan_out.invoke_concurrent(requests(1)))
    await asyncio.sleep(5)
    fan_out.pool.release("somebody else")
    assert (await waiting).success_count == 1


async def test_a_halted_system_touches_neither_pool_nor_orchestrator() -> None:
    orchestrator = AgentOrchestratorStub()
    fan_out = service(orchestrator, halt=HaltCheckerStub(force_halted=True, halt_reason="drill"))
    with pytest.raises(SystemHaltedError, match="FR10") as halted:
        await fan_out.invoke_concurrent(requests(10))
    assert (halted.value.reason, halted.value.partial) == ("drill", None)
    assert (orchestrator.invocations, fan_out.pool.active_count) == (0, 0)


async def test_a_halt_in_the_middle_keeps_what_was_answered_and_names_everyone_else() -> None:
    halt = HaltCheckerStub()
    fan_out = service(Scripted(archon_1=hanging, archon_2=hanging), halt=halt)
    asyncio.get_running_loop().call_later(5, lambda: asyncio.ensure_future(halt.set_halted("fire")))
    with pytest.raises(SystemHaltedError) as halted:
        await fan_out.invoke_concurrent(requests(4))
    partial = halted.value.partial
    assert isinstance(partial, ConcurrentResult)
    assert [output.agent_id for output in partial.outputs] == ["archon-0", "archon-3"]
    assert [(f.agent_id, f.state, f.kind) for f in partial.failures] == [
        ("archon-1", AgentState.HALTED, "halted"),
        ("archon-2", AgentState.HALTED, "halted"),
    ]
    assert partial.total_ms == pytest.approx(5_000)
    assert fan_out.pool.active_count == 0


async def test_after_a_halt_no_waiting_agent_is_called() -> None:
    halt = HaltCheckerStub()
    orchestrator = Scripted(archon_0=hanging)
    fan_out = service(orchestrator, slots=1, halt=halt)
    running = asyncio.create_task(fan_out.run_batch(Batch("b", agent_timeout_s=99), requests(50), max_attempts=1))
    await asyncio.sleep(3)
    await halt.set_halted("fire")
    result = await running
    assert list(orchestrator.attempts) == ["archon-0"]
    assert {failure.state for failure in result.failures} == {AgentState.HALTED}
    assert result.failure_count == 50


async def test_no_second_attempt_is_made_once_halted() -> None:
    halt = HaltCheckerStub()
    orchestrator = Scripted(archon_0=raising(AgentInvocationError("reset", retryable=True, retry_after_s=5)))
    running = asyncio.create_task(service(orchestrator, halt=halt).invoke_concurrent(requests(1)))
    await asyncio.sleep(1)
    await halt.set_halted()
    with pytest.raises(SystemHaltedError):
        await running
    assert len(orchestrator.attempts["archon-0"]) == 1


async def test_a_halt_found_by_the_orchestrator_is_never_an_agents_failure() -> None:
    with pytest.raises(SystemHaltedError) as halted:
        await service(Scripted(archon_1=raising(SystemHaltedError("drill")), archon_2=hanging)).invoke_concurrent(
            requests(3)
        )
    assert {failure.state for failure in halted.value.partial.failures} == {AgentState.HALTED}


@pytest.mark.parametrize(
    ("cause", "state"), [(StopCause.CANCELLED, AgentState.CANCELLED), (StopCause.SUSPENDED, AgentState.CANCELLED)]
)
async def test_a_stopped_batch_ends_its_agents_with_the_cause(cause: StopCause, state: AgentState) -> None:
    orchestrator = Scripted(archon_0=hanging)
    fan_out = service(orchestrator, slots=1)
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(fan_out.run_batch(batch, requests(3), max_attempts=1))
    await asyncio.sleep(2)
    batch.stop(cause)
    batch.stop(StopCause.HALTED)
    result = await running
    assert (batch.cause, {failure.state for failure in result.failures}) == (cause, {state})
    assert (orchestrator.active, fan_out.pool.active_count, fan_out.waiting_count) == (0, 0, 0)


async def test_a_batch_stopped_before_it_began_calls_nobody() -> None:
    orchestrator = Scripted()
    batch = Batch("b", agent_timeout_s=99)
    batch.stop(StopCause.CANCELLED)
    result = await service(orchestrator).run_batch(batch, requests(3), max_attempts=1)
    assert (orchestrator.attempts, result.failure_count) == ({}, 3)


async def test_cancelling_the_caller_cancels_the_calls_and_frees_the_slots() -> None:
    orchestrator = Scripted(archon_0=hanging, archon_1=hanging)
    fan_out = service(orchestrator, slots=2)
    caller = asyncio.create_task(fan_out.invoke_concurrent(requests(2)))
    await asyncio.sleep(1)
    assert orchestrator.active == 2
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (orchestrator.active, fan_out.pool.active_count, fan_out.waiting_count) == (0, 0, 0)


async def test_a_single_agent_can_be_asked_and_its_failure_is_raised() -> None:
    fan_out = service(AgentOrchestratorStub(failing={"archon-1"}))
    assert (await fan_out.invoke_single(requests(1)[0])).agent_id == "archon-0"
    with pytest.raises(AgentInvocationError) as failed:
        await fan_out.invoke_single(requests(2)[1])
    assert (failed.value.agent_id, failed.value.kind) == ("archon-1", "simulated_failure")


async def test_every_failed_agent_is_logged_with_batch_id_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        result = await service(AgentOrchestratorStub(failing={"archon-1", "archon-2"})).invoke_concurrent(requests(5))
    logged = [(r.__dict__["agent_id"], r.__dict__["kind"], r.__dict__["batch_id"]) for r in caplog.records]
    assert logged == [(agent, "simulated_failure", result.batch_id) for agent in ("archon-1", "archon-2")]


def test_the_pool_status_keeps_its_old_names() -> None:
    assert service(AgentOrchestratorStub()).get_pool_status() == {
        "active_count": 0,
        "available_count": 72,
        "max_concurrent": 72,
    }


def test_the_services_are_exported_by_name() -> None:
    for name in application.services.__all__:
        assert getattr(application.services, name).__name__ == name


async def test_the_same_seed_gives_the_same_schedule_twice() -> None:
    async def run() -> list[tuple[str, float]]:
        orchestrator = AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 9), seed=3)
        result = await service(orchestrator, slots=5).run_batch(
            Batch("b", agent_timeout_s=99), requests(40), max_attempts=1
        )
        return [(output.agent_id, round(output.duration_seconds, 9)) for output in result.outputs]

    assert await run() == await run()


class Ledger(NullMetrics):
    """Counts what the metrics count."""

    def __init__(self) -> None:
        self.invoked = 0
        self.ended: Counter[AgentState] = Counter()

    def agent_invoked(self) -> None:
        self.invoked += 1

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        self.ended[state] += 1


async def test_invoked_is_ended_plus_active_at_every_step_of_the_loop() -> None:
    ledger = Ledger()
    orchestrator = AgentOrchestratorStub(
        latency_seconds=lambda g: g.choice([0, 0.5, 1]), failing={"archon-3"}, hanging={"archon-5"}
    )
    pool = AgentPool(8)
    fan_out = ConcurrentDeliberationService(
        orchestrator=orchestrator, halt_checker=HaltCheckerStub(), pool=pool, metrics=ledger
    )
    looks = 0

    async def look() -> None:
        nonlocal looks
        while True:
            looks += 1
            assert ledger.invoked == ledger.ended.total() + pool.active_count
            await asyncio.sleep(0 if looks % 50 else 0.25)

    batch = Batch("stopped", agent_timeout_s=4)
    looking = asyncio.create_task(look())
    running = [
        asyncio.create_task(fan_out.run_batch(Batch("whole", agent_timeout_s=4), requests(72), max_attempts=1)),
        asyncio.create_task(fan_out.run_batch(batch, requests(72), max_attempts=1)),
        asyncio.create_task(fan_out.run_batch(Batch("given up", agent_timeout_s=4), requests(72), max_attempts=1)),
    ]
    await asyncio.sleep(3)
    batch.stop(StopCause.CANCELLED)
    running[2].cancel()
    results = await asyncio.gather(*running, return_exceptions=True)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking
    assert isinstance(results[2], asyncio.CancelledError)
    assert (pool.active_count, looks > 100) == (0, True)
    assert ledger.invoked == ledger.ended.total()
    assert ledger.ended[AgentState.CANCELLED] > 0


async def test_a_suspended_agent_counts_only_where_it_held_a_slot() -> None:
    ledger = Ledger()
    pool = AgentPool(2)
    fan_out = ConcurrentDeliberationService(
        orchestrator=Scripted(archon_0=hanging, archon_1=hanging),
        halt_checker=HaltCheckerStub(),
        pool=pool,
        metrics=ledger,
    )
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(fan_out.run_batch(batch, requests(5), max_attempts=1))
    await asyncio.sleep(1)
    batch.stop(StopCause.SUSPENDED)
    result = await running
    assert {(failure.kind, failure.state) for failure in result.failures} == {("suspended", AgentState.CANCELLED)}
    assert (ledger.invoked, ledger.ended, pool.active_count) == (2, {AgentState.CANCELLED: 2}, 0)


async def test_a_suspended_agent_is_nobodys_failure_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    batch = Batch("b", agent_timeout_s=99)
    batch.stop(StopCause.SUSPENDED)
    with caplog.at_level(logging.INFO):
        await service(Scripted()).run_batch(batch, requests(3), max_attempts=1)
    assert caplog.records == []


async def test_winding_down_lets_calls_in_flight_be_finished_and_begins_no_other() -> None:
    orchestrator = Scripted()
    fan_out = service(orchestrator, slots=2)
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(fan_out.run_batch(batch, requests(5), max_attempts=1))
    await asyncio.sleep(0.5)
    batch.wind_down(StopCause.SUSPENDED)
    batch.wind_down(StopCause.CANCELLED)
    result = await running
    assert [output.agent_id for output in result.outputs] == ["archon-0", "archon-1"]
    assert {failure.kind for failure in result.failures} == {"suspended"}
    assert batch.cause is StopCause.SUSPENDED
    assert result.total_ms == pytest.approx(1_000)
    assert (list(orchestrator.attempts), fan_out.pool.active_count) == (["archon-0", "archon-1"], 0)


async def test_winding_down_makes_no_further_attempt() -> None:
    refused = AgentInvocationError("reset", kind="connection_lost", retryable=True, retry_after_s=3)
    orchestrator = Scripted(archon_0=raising(refused))
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(service(orchestrator).run_batch(batch, requests(1), max_attempts=5))
    await asyncio.sleep(1)
    batch.wind_down(StopCause.SUSPENDED)
    assert only_failure(await running) == ("archon-0", "suspended", AgentState.CANCELLED, 1)
    assert len(orchestrator.attempts["archon-0"]) == 1


@pytest.mark.parametrize(("after", "ends_at"), [("stop", 2), ("halt", 2), ("agent", 9), ("deadline", 12)])
async def test_calls_that_are_being_finished_still_end_by_every_limit(after: str, ends_at: float) -> None:
    halt = HaltCheckerStub()
    batch = Batch("b", agent_timeout_s=9 if after == "agent" else 99, deadline=12)
    orchestrator = Scripted(archon_0=hanging)
    running = asyncio.create_task(service(orchestrator, halt=halt).run_batch(batch, requests(2), max_attempts=1))
    await asyncio.sleep(0.5)
    batch.wind_down(StopCause.SUSPENDED)
    await asyncio.sleep(1.5)
    if after == "stop":
        batch.stop(StopCause.SUSPENDED)
    elif after == "halt":
        await halt.set_halted("fire")
    result = await running
    assert result.success_count == 1
    assert result.total_ms == pytest.approx(ends_at * 1000)
    assert only_failure(result) == ("archon-0", "suspended", AgentState.CANCELLED, 1)
    assert orchestrator.active == 0


def _later(attempt: int, count: int = 1) -> list[AgentRequest]:
    return [replace(request, attempt=attempt) for request in requests(count)]


async def test_what_another_process_began_goes_on_with_its_numbers() -> None:
    result = await service(Scripted()).run_batch(Batch("b", agent_timeout_s=9), _later(2), max_attempts=2)
    assert [(output.attempt, output.duration_seconds) for output in result.outputs] == [(2, 1.0)]
    hung = await service(Scripted(archon_0=hanging)).run_batch(Batch("b", agent_timeout_s=9), _later(3), max_attempts=2)
    assert only_failure(hung) == ("archon-0", "agent_timeout", AgentState.TIMED_OUT, 3)


@pytest.mark.parametrize(
    ("first", "limit", "made"), [(1, 2, [1, 2]), (2, 2, [2]), (3, 2, [3]), (2, 4, [2, 3, 4]), (4, 1, [4])]
)
async def test_one_further_attempt_is_made_at_most_beyond_the_limit(first: int, limit: int, made: list[int]) -> None:
    asked: list[int] = []

    def refuse(request: AgentRequest) -> AgentOutput:
        asked.append(request.attempt)
        raise AgentInvocationError("reset", kind="connection_lost", retryable=True)

    batch = Batch("b", agent_timeout_s=99)
    result = await service(Scripted(archon_0=refuse)).run_batch(batch, _later(first), max_attempts=limit)
    assert asked == made
    assert only_failure(result) == ("archon-0", "connection_lost", AgentState.FAILED, made[-1])


async def test_one_that_is_not_asked_again_has_made_the_attempts_before() -> None:
    batch = Batch("b", agent_timeout_s=99)
    batch.stop(StopCause.CANCELLED)
    result = await service(Scripted()).run_batch(batch, _later(3), max_attempts=2)
    assert only_failure(result) == ("archon-0", "cancelled", AgentState.CANCELLED, 2)
    assert result.failures[0].usage.calls == 0


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
        await asyncio.sleep(self._takes_s)
        self.started.append((request.agent_id, request.attempt, previous))

    async def agent_ended(
        self, request: AgentRequest, ending: AgentOutput | AgentFailure, last: CallEnd | None = None
    ) -> AgentState:
        self.ended.append((request.agent_id, ending.kind if isinstance(ending, AgentFailure) else "answer"))
        return ending.state if isinstance(ending, AgentFailure) else AgentState.ANSWERED


async def test_the_observer_is_told_before_each_attempt_how_the_one_before_ended() -> None:
    slow_down = AgentInvocationError("429", kind="rate_limited", state=AgentState.THROTTLED, retryable=True)
    reset = AgentInvocationError("reset", kind="connection_lost", retryable=True)
    told = Witness()
    batch = Batch("b", agent_timeout_s=99)
    orchestrator = Scripted(archon_0=raising(slow_down, reset))
    await service(orchestrator).run_batch(batch, requests(1), max_attempts=3, observer=told)
    assert told.started == [
        ("archon-0", 1, None),
        ("archon-0", 2, AttemptEnd(AgentState.THROTTLED, "rate_limited", CallEnd(1, Forecast(), None))),
        ("archon-0", 3, AttemptEnd(AgentState.FAILED, "connection_lost", CallEnd(2, Forecast(), None))),
    ]
    assert told.ended == [("archon-0", "answer")]


class DoubtfulHalt(HaltCheckerStub):
    """In doubt until it is made sure."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = asyncio.Event()
        self.sure.set()

    async def is_halted(self) -> bool:
        return not self.sure.is_set() or await super().is_halted()

    async def wait_until_open(self) -> bool:
        await self.sure.wait()
        return await super().wait_until_open()


async def test_in_doubt_no_call_begins_and_nobodys_time_runs_and_then_it_goes_on() -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    running = asyncio.create_task(
        service(orchestrator, halt=halt, slots=2).run_batch(Batch("b", agent_timeout_s=3), requests(4), max_attempts=1)
    )
    await asyncio.sleep(0.5)
    halt.sure.clear()
    await asyncio.sleep(50)
    assert list(orchestrator.attempts) == ["archon-0", "archon-1"]
    halt.sure.set()
    result = await running
    assert result.success_count == 4
    assert result.total_ms == pytest.approx(51_500)
    assert {output.duration_seconds for output in result.outputs} == {1.0}


async def test_a_batch_that_begins_in_doubt_waits_as_well() -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    halt.sure.clear()
    asyncio.get_running_loop().call_later(50, halt.sure.set)
    result = await service(orchestrator, halt=halt).run_batch(
        Batch("b", agent_timeout_s=3), requests(4), max_attempts=1
    )
    assert (result.success_count, orchestrator.attempts["archon-0"]) == (4, [50])


@pytest.mark.parametrize("doubt_from", [0.0, 0.5])
async def test_the_deadline_runs_while_it_is_in_doubt(doubt_from: float) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if doubt_from:
        asyncio.get_running_loop().call_later(doubt_from, halt.sure.clear)
    else:
        halt.sure.clear()
    fan_out = service(orchestrator, halt=halt, slots=2)
    result = await fan_out.run_batch(Batch("b", agent_timeout_s=99, deadline=20), requests(4), max_attempts=1)
    assert {(failure.kind, failure.attempts) for failure in result.failures} == {("deadline", 0)}
    assert result.success_count == (2 if doubt_from else 0)
    assert asyncio.get_running_loop().time() == pytest.approx(20)
    assert fan_out.pool.active_count == 0


@pytest.mark.parametrize("doubt_from", [0.0, 0.5])
@pytest.mark.parametrize("cause", [StopCause.CANCELLED, StopCause.SUSPENDED])
async def test_a_stop_is_heeded_while_it_is_in_doubt(doubt_from: float, cause: StopCause) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if doubt_from:
        asyncio.get_running_loop().call_later(doubt_from, halt.sure.clear)
    else:
        halt.sure.clear()
    batch = Batch("b", agent_timeout_s=99)
    asyncio.get_running_loop().call_later(5, batch.stop, cause)
    result = await service(orchestrator, halt=halt, slots=2).run_batch(batch, requests(4), max_attempts=1)
    assert {failure.state for failure in result.failures} == {AgentState.CANCELLED}
    assert asyncio.get_running_loop().time() == pytest.approx(5)


@pytest.mark.parametrize("began_in_doubt", [True, False])
async def test_a_doubt_that_turns_out_to_be_a_halt_halts(began_in_doubt: bool) -> None:
    halt, orchestrator = DoubtfulHalt(), Scripted()
    if began_in_doubt:
        halt.sure.clear()
    running = asyncio.create_task(
        service(orchestrator, halt=halt, slots=2).run_batch(Batch("b", agent_timeout_s=9), requests(4), max_attempts=1)
    )
    await asyncio.sleep(0.5)
    halt.sure.clear()
    await asyncio.sleep(5)
    await halt.set_halted("fire")
    halt.sure.set()
    if began_in_doubt:
        with pytest.raises(SystemHaltedError):
            await running
    else:
        result = await running
        assert {failure.kind for failure in result.failures} == {"halted"}
    assert len(orchestrator.attempts) == (0 if began_in_doubt else 2)


async def test_a_doubt_that_comes_up_while_a_further_attempt_is_recorded_holds_its_call_back() -> None:
    halt = DoubtfulHalt()
    orchestrator = Scripted(archon_0=raising(AgentInvocationError("reset", kind="reset", retryable=True)))
    running = asyncio.create_task(
        service(orchestrator, halt=halt).run_batch(
            Batch("b", agent_timeout_s=99), requests(1), max_attempts=2, observer=Witness(takes_s=2)
        )
    )
    # The first is recorded until 2 s, the second from 2.25 s to 4.25 s.
    await asyncio.sleep(3)
    halt.sure.clear()
    await asyncio.sleep(20)
    assert orchestrator.attempts["archon-0"] == [2]
    halt.sure.set()
    assert (await running).outputs[0].attempt == 2
    assert orchestrator.attempts["archon-0"] == [2, 23]
