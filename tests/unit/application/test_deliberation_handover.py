"""A deliberation goes from process to process: one stops, dies or holds it, and another goes on with it or leaves it alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from domain.errors.deliberation import (
    ServiceStoppingError,
)
from domain.models.budget import Limits
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, abandon, build, history, opened, specification
from tests.virtual_time import pass_time


async def test_stopping_lets_calls_in_flight_be_finished_and_leaves_the_rest_to_the_next_process() -> None:
    orchestrator = Canned({"archon-0": None})
    first = build(orchestrator, max_running=1)
    await first.service.start()
    running = await first.service.submit(specification(2))
    waiting = await first.service.submit(specification(2))
    await pass_time(0.5)
    await first.service.stop(drain_s=1)
    with pytest.raises(ServiceStoppingError):
        await first.service.submit(specification(1))
    left = await first.service.get(running.id)
    assert (left.status, left.roll_call[AgentState.ANSWERED], left.roll_call.asked) == (
        DeliberationStatus.RUNNING,
        1,
        1,
    )
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        gone_on_with = await second.service.wait(running.id, timeout_s=None)
        ended = await second.service.wait(waiting.id, timeout_s=None)
    assert gone_on_with.status is ended.status is DeliberationStatus.COMPLETED
    assert gone_on_with.roll_call[AgentState.ANSWERED] == 2
    assert sorted(following.calls) == ["archon-0", "archon-0", "archon-1"]


async def test_a_deliberation_whose_process_died_is_gone_on_with_and_no_finished_call_is_made_again() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(3))
    await pass_time(5)
    await abandon(first)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        still = await second.service.get(running.id)
        assert still.status is DeliberationStatus.RUNNING
        ended = await second.service.wait(running.id, timeout_s=None)
        events = await history(second, running.id)
    assert following.calls == ["archon-0"]
    assert ended.status is DeliberationStatus.COMPLETED
    assert (ended.roll_call[AgentState.ANSWERED], ended.usage.calls) == (3, 4)
    attempts = {record.agent_id: record.attempts for record in ended.rounds[0].records}
    assert attempts == {"archon-0": 2, "archon-1": 1, "archon-2": 1}
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "deliberation.completed"


async def test_a_call_that_was_cut_off_at_every_attempt_is_not_made_for_ever() -> None:
    repository = None
    calls: list[str] = []
    for _ in range(3):
        house = build(Canned({"archon-0": None}), repository)
        repository = house.repository
        await house.service.start()
        if not calls:
            running = await house.service.submit(specification(1))
        await pass_time(8)
        await abandon(house)
        calls.append(running.id)
    last = Canned({})
    async with opened(build(last, repository)) as house:
        ended = await house.service.wait(running.id, timeout_s=None)
    assert last.calls == []
    (lost,) = ended.failures
    assert (lost.state, lost.failure and lost.failure.kind, lost.attempts) == (AgentState.FAILED, "interrupted", 3)


async def test_the_deadline_runs_on_while_nobody_works() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(2, limits=Limits(deadline_s=60)))
    await pass_time(5)
    await abandon(first)
    await pass_time(100)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert following.calls == []
    assert (ended.status, ended.roll_call[AgentState.TIMED_OUT]) == (DeliberationStatus.COMPLETED, 1)


async def test_a_holder_whose_lease_was_taken_over_records_nothing_more() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=60)))
    await pass_time(5)
    kept = first.repository._kept[running.id]
    kept.lease_until = VirtualClock().now() - timedelta(seconds=1)
    claim = await first.repository.claim(running.id, lease="other/1", lease_s=1000)
    assert claim is not None
    await pass_time(100)
    still = await first.service.get(running.id)
    await first.service.stop(drain_s=0)
    assert (still.status, still.roll_call.asked) == (DeliberationStatus.RUNNING, 1)
    assert first.pool.active_count == 0


async def test_a_living_process_keeps_its_deliberations_however_many_others_start() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=60)))
    async with opened(build(Canned({}), first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    await first.service.stop(drain_s=0)
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.roll_call[AgentState.TIMED_OUT] == 1


async def test_a_cancellation_asked_for_in_another_process_arrives_within_a_heartbeat() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(2))
    other = build(Canned({}), first.repository)
    await pass_time(5)
    await other.service.cancel(running.id)
    began = asyncio.get_running_loop().time()
    ended = await other.service.wait(running.id, timeout_s=None)
    await first.service.stop(drain_s=0)
    assert ended.status is DeliberationStatus.CANCELLED
    assert asyncio.get_running_loop().time() - began <= 2.1
