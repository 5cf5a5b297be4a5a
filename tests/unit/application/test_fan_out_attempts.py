"""Failures that may pass are tried again, after the wait that is asked for, and each attempt is numbered and told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast
from application.services.batch import AttemptEnd, Batch, CallEnd, StopCause
from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState
from tests.unit.application.scripted_fan_out import Scripted, Witness, hanging, only_failure, raising, requests, service


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
