"""The fan-out, in virtual time: every agent accounted for, none disturbed by another, a halt that stops everything."""

from __future__ import annotations

import asyncio
import logging
from uuid import uuid4

import pytest

import application.services
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.batch import Batch
from application.services.concurrent_deliberation_service import ConcurrentResult
from domain.errors.agent import AgentAlreadyActiveError, AgentInvocationError, AgentPoolExhaustedError
from domain.errors.halt import SystemHaltedError
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.unit.application.scripted_fan_out import Scripted, hanging, only_failure, raising, requests, service
from tests.virtual_time import pass_time


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
        await pass_time(2)
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


class _Speechless(Exception):  # noqa: N818 - what it is called is what it is
    def __str__(self) -> str:
        raise RuntimeError("no words")


class _Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "raised", [_Speechless(), _Odd("base"), BaseExceptionGroup("g", [_Odd()])], ids=lambda one: type(one).__name__
)
async def test_however_odd_what_an_orchestrator_raises_is_the_others_answer(raised: BaseException) -> None:
    result = await service(Scripted(archon_1=raising(raised))).invoke_concurrent(requests(3))
    assert only_failure(result) == ("archon-1", "unexpected_error", AgentState.FAILED, 1)
    assert type(raised).__name__ in result.failures[0].message
    assert result.success_count == 2


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
    await pass_time(0.5)
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
    await pass_time(0.5)
    small = await fan_out.run_batch(Batch("small", agent_timeout_s=99), requests(2), max_attempts=1)
    # Four slots a second, four batches in turn: the small one needs two rounds of turns and no more.
    assert small.total_ms <= 3_500
    assert sum(task.done() for task in large) == 0
    await asyncio.gather(*large)


async def test_a_slot_given_back_on_the_pool_itself_reaches_whoever_waits() -> None:
    fan_out = service(Scripted(), slots=1)
    fan_out.pool.acquire("somebody else")
    waiting = asyncio.create_task(fan_out.invoke_concurrent(requests(1)))
    await pass_time(5)
    fan_out.pool.release("somebody else")
    assert (await waiting).success_count == 1


async def test_a_halted_system_touches_neither_pool_nor_orchestrator() -> None:
    orchestrator = AgentOrchestratorStub()
    fan_out = service(orchestrator, halt=HaltCheckerStub(force_halted=True, halt_reason="drill"))
    with pytest.raises(SystemHaltedError, match="FR10") as halted:
        await fan_out.invoke_concurrent(requests(10))
    assert (halted.value.reason, halted.value.partial) == ("drill", None)
    assert (orchestrator.invocations, fan_out.pool.active_count) == (0, 0)


async def test_halted_it_is_the_halt_that_refuses_more_requests_than_slots_as_well() -> None:
    fan_out = service(AgentOrchestratorStub(), halt=HaltCheckerStub(force_halted=True, halt_reason="drill"))
    with pytest.raises(SystemHaltedError):
        await fan_out.invoke_concurrent(requests(73))


async def test_what_an_orchestrator_says_of_a_halt_is_its_reason() -> None:
    told = SystemHaltedError("the provider was switched off")
    with pytest.raises(SystemHaltedError) as halted:
        await service(Scripted(archon_1=raising(told))).invoke_concurrent(requests(3))
    assert halted.value.reason == "the provider was switched off"


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
    await pass_time(3)
    await halt.set_halted("fire")
    result = await running
    assert list(orchestrator.attempts) == ["archon-0"]
    assert {failure.state for failure in result.failures} == {AgentState.HALTED}
    assert result.failure_count == 50


async def test_no_second_attempt_is_made_once_halted() -> None:
    halt = HaltCheckerStub()
    orchestrator = Scripted(archon_0=raising(AgentInvocationError("reset", retryable=True, retry_after_s=5)))
    running = asyncio.create_task(service(orchestrator, halt=halt).invoke_concurrent(requests(1)))
    await pass_time(1)
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
