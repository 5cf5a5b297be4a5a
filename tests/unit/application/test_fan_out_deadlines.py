"""Whoever has not answered is timed out by the limit that falls due first, and nobody else waits for it."""

from __future__ import annotations

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.batch import Batch
from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState
from tests.unit.application.scripted_fan_out import Scripted, Witness, hanging, only_failure, requests, service
from tests.virtual_time import pass_time, time_passed


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
        await pass_time(2)
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


async def test_whoever_is_asked_past_the_deadline_is_timed_out_without_a_call() -> None:
    orchestrator = Scripted()
    witness = Witness()
    fan_out = service(orchestrator, slots=2)
    await pass_time(10)
    batch = Batch("b", agent_timeout_s=120, deadline=9)
    result = await fan_out.run_batch(batch, requests(5), max_attempts=2, observer=witness)
    assert {(f.kind, f.state, f.attempts) for f in result.failures} == {("deadline", AgentState.TIMED_OUT, 0)}
    assert result.failure_count == 5
    assert (orchestrator.attempts, witness.started, witness.held) == ({}, [], 0)
    assert (fan_out.pool.active_count, time_passed()) == (0, 10)


async def test_no_call_begins_once_the_deadline_came_while_its_intent_was_recorded() -> None:
    orchestrator = Scripted()
    # The deadline's timer and the end of the recording are of one moment; whichever comes first, there is no call.
    witness = Witness(takes_s=5)
    batch = Batch("b", agent_timeout_s=120, deadline=5)
    result = await service(orchestrator).run_batch(batch, requests(3), max_attempts=2, observer=witness)
    assert {(f.kind, f.state) for f in result.failures} == {("deadline", AgentState.TIMED_OUT)}
    assert orchestrator.attempts == {}


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
