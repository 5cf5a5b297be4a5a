"""A batch that is stopped, wound down or given up ends all its agents, and frees what they held."""

from __future__ import annotations

import asyncio
import logging

import pytest

from application.services.batch import Batch, StopCause
from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.unit.application.scripted_fan_out import Scripted, hanging, only_failure, raising, requests, service
from tests.virtual_time import pass_time


@pytest.mark.parametrize(
    ("cause", "state"), [(StopCause.CANCELLED, AgentState.CANCELLED), (StopCause.SUSPENDED, AgentState.CANCELLED)]
)
async def test_a_stopped_batch_ends_its_agents_with_the_cause(cause: StopCause, state: AgentState) -> None:
    orchestrator = Scripted(archon_0=hanging)
    fan_out = service(orchestrator, slots=1)
    batch = Batch("b", agent_timeout_s=99)
    running = asyncio.create_task(fan_out.run_batch(batch, requests(3), max_attempts=1))
    await pass_time(2)
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
    await pass_time(1)
    assert orchestrator.active == 2
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert (orchestrator.active, fan_out.pool.active_count, fan_out.waiting_count) == (0, 0, 0)


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
    await pass_time(0.5)
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
    await pass_time(1)
    batch.wind_down(StopCause.SUSPENDED)
    assert only_failure(await running) == ("archon-0", "suspended", AgentState.CANCELLED, 1)
    assert len(orchestrator.attempts["archon-0"]) == 1


@pytest.mark.parametrize(("after", "ends_at"), [("stop", 2), ("halt", 2), ("agent", 9), ("deadline", 12)])
async def test_calls_that_are_being_finished_still_end_by_every_limit(after: str, ends_at: float) -> None:
    halt = HaltCheckerStub()
    batch = Batch("b", agent_timeout_s=9 if after == "agent" else 99, deadline=12)
    orchestrator = Scripted(archon_0=hanging)
    running = asyncio.create_task(service(orchestrator, halt=halt).run_batch(batch, requests(2), max_attempts=1))
    await pass_time(0.5)
    batch.wind_down(StopCause.SUSPENDED)
    await pass_time(1.5)
    if after == "stop":
        batch.stop(StopCause.SUSPENDED)
    elif after == "halt":
        await halt.set_halted("fire")
    result = await running
    assert result.success_count == 1
    assert result.total_ms == pytest.approx(ends_at * 1000)
    assert only_failure(result) == ("archon-0", "suspended", AgentState.CANCELLED, 1)
    assert orchestrator.active == 0
