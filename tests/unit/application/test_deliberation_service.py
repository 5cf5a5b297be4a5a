"""Deliberations from acceptance to their one terminal state, in virtual time on the in-memory store."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationNotFoundError,
    QueueFullError,
)
from domain.errors.halt import SystemHaltedError
from domain.models.budget import Limits, Quorum
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.service_fixture import Canned, build, finished, history, opened, specification
from tests.virtual_time import pass_time


async def test_a_deliberation_runs_to_a_decision_with_everyone_accounted_for() -> None:
    answers = {
        "archon-0": '{"answer": "no", "reasoning": "Deliveries."}',
        "archon-1": '{"answer": null}',
        "archon-2": "hm",
    }
    async with opened(build(Canned(answers))) as house:
        ended = await finished(house, specification())
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.outcome is not None
    assert (ended.outcome.decision, dict(ended.outcome.tally)) == ("yes", {"yes": 2, "no": 1, "weekends only": 0})
    assert ended.outcome.dissent.positions[0].reasons == ("Deliveries.",)
    assert (ended.roll_call.asked, ended.roll_call[AgentState.ANSWERED]) == (5, 3)
    assert [(f.agent_id, f.state, f.failure and f.failure.kind) for f in ended.failures] == [
        ("archon-2", AgentState.INVALID, "unreadable_reply")
    ]


async def test_events_tell_the_whole_story_in_order_without_gaps() -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(3))
        events = await history(house, ended.id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["deliberation.queued", "deliberation.started", "round.started"]
    assert sorted(kinds[3:9]) == ["agent.ended"] * 3 + ["agent.started"] * 3
    assert kinds[9:] == ["round.ended", "deliberation.completed"]
    assert events[-1].data["roll_call"]["asked"] == 3


@pytest.mark.parametrize("after", [0, 1, 4, 10, 11, 99])
async def test_events_resume_exactly_after_the_last_one_seen_and_end(after: int) -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(3))
        resumed = await history(house, ended.id, after)
    assert [event.sequence for event in resumed] == list(range(after + 1, 12))


async def test_a_watcher_sees_events_as_they_are_committed() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        accepted = await house.service.submit(specification(2, limits=Limits(agent_timeout_s=50)))
        loop = asyncio.get_running_loop()
        seen = {
            (event.type, event.data.get("agent_id")): loop.time()
            async for event in house.service.events(accepted.id)
            if event is not None
        }
    assert seen[("agent.ended", "archon-1")] == pytest.approx(1, abs=0.1)
    assert seen[("agent.ended", "archon-0")] == pytest.approx(50, abs=0.1)


async def test_too_few_taking_part_is_inquorate_and_carries_no_decision() -> None:
    async with opened(build(Canned({f"archon-{n}": "no ballot" for n in range(3)}))) as house:
        ended = await finished(house, specification(5, quorum=Quorum(0.5)))
    assert (ended.status, ended.outcome) == (DeliberationStatus.INQUORATE, None)
    assert ended.roll_call[AgentState.INVALID] == 3


async def test_the_deadline_times_out_whoever_is_left_and_then_the_quorum_decides() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        ended = await finished(house, specification(5, limits=Limits(deadline_s=10)))
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.roll_call[AgentState.TIMED_OUT] == 1
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() == pytest.approx(10, abs=0.1)


async def test_waves_ask_one_group_after_the_other() -> None:
    orchestrator = Canned({f"archon-{number}": '{"answer": "no"}' for number in range(1, 5, 2)})
    async with opened(build(orchestrator)) as house:
        ended = await finished(house, specification(5, wave_size=2))
    assert ended.roll_call[AgentState.ANSWERED] == 5
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() == pytest.approx(3, abs=0.1)


async def test_a_round_larger_than_the_pool_waits_for_slots_agent_by_agent() -> None:
    async with opened(build(Canned({}), slots=2)) as house:
        ended = await finished(house, specification(5))
    assert ended.roll_call[AgentState.ANSWERED] == 5


async def test_cancelling_reaches_the_call_and_keeps_what_was_answered() -> None:
    orchestrator = Canned({"archon-0": None})
    async with opened(build(orchestrator)) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(5)
        assert orchestrator.active == 1
        await house.service.cancel(accepted.id)
        ended = await house.service.wait(accepted.id, timeout_s=None)
        with pytest.raises(DeliberationEndedError) as refused:
            await house.service.cancel(accepted.id)
    assert refused.value.status == "cancelled"
    assert (ended.status, orchestrator.active, house.pool.active_count) == (DeliberationStatus.CANCELLED, 0, 0)
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.CANCELLED]) == (2, 1)


async def test_a_queued_deliberation_can_be_cancelled_before_anyone_is_asked() -> None:
    orchestrator = Canned({"archon-0": None})
    async with opened(build(orchestrator, max_running=1)) as house:
        await house.service.submit(specification(1))
        await pass_time(0.1)
        waiting = await house.service.submit(specification(1))
        cancelled = await house.service.cancel(waiting.id)
        events = await history(house, waiting.id)
    assert (cancelled.status, cancelled.roll_call.asked) == (DeliberationStatus.CANCELLED, 0)
    assert [event.type for event in events] == ["deliberation.queued", "deliberation.cancelled"]
    assert orchestrator.calls == ["archon-0"]


async def test_a_halt_ends_what_runs_as_halted_with_partial_ballots_kept() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(5)
        await house.halt.set_halted("drill")
        ended = await house.service.wait(accepted.id, timeout_s=None)
        with pytest.raises(SystemHaltedError):
            await house.service.submit(specification(3))
    assert (ended.status, ended.outcome) == (DeliberationStatus.HALTED, None)
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.HALTED]) == (2, 1)


async def test_ten_run_at_a_time_a_hundred_wait_and_the_next_is_refused() -> None:
    orchestrator = Canned({"archon-0": None})
    async with opened(build(orchestrator, slots=200)) as house:
        for _ in range(110):
            await house.service.submit(specification(1))
        await pass_time(0.1)
        assert (house.service.running_count, await house.service.count_queued()) == (10, 100)
        with pytest.raises(QueueFullError) as refused:
            await house.service.submit(specification(1))
    assert (refused.value.waiting, refused.value.limit) == (100, 100)


async def test_many_submitted_at_once_never_pass_the_bound_together() -> None:
    async with opened(build(Canned({"archon-0": None}), max_running=1, max_queued=3)) as house:
        results = await asyncio.gather(
            *(house.service.submit(specification(1)) for _ in range(20)), return_exceptions=True
        )
        accepted = [result for result in results if isinstance(result, Deliberation)]
        assert house.service.running_count + await house.service.count_queued() == len(accepted)
    assert all(isinstance(result, Deliberation | QueueFullError) for result in results)
    assert len(accepted) <= 5


async def test_somebody_elses_deliberation_is_not_to_be_found() -> None:
    async with opened(build(Canned({}))) as house:
        accepted = await house.service.submit(specification(1), key_name="alice")
        with pytest.raises(DeliberationNotFoundError):
            await house.service.get(accepted.id, key_name="bob")
        assert (await house.service.get(accepted.id, key_name="alice")).id == accepted.id
        assert (await house.service.get(accepted.id)).id == accepted.id


async def test_waiting_gives_the_present_state_when_time_is_up() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        accepted = await house.service.submit(specification(1))
        assert (await house.service.wait(accepted.id, timeout_s=3)).status is DeliberationStatus.RUNNING


async def test_the_same_seed_gives_the_same_outcome_twice() -> None:
    async def outcome() -> object:
        async with opened(build(AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 5), seed=7))) as house:
            return (await finished(house, specification(40))).outcome

    assert await outcome() == await outcome()
