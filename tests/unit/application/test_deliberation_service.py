"""Deliberations from acceptance to their one terminal state, in virtual time on the in-memory store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from application.ports.deliberation_repository import Commit, StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.deliberation_output_service import DeliberationOutputService
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationNotFoundError,
    QueueFullError,
    RecordMismatchError,
    ServiceStoppingError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.budget import Limits, Quorum
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, abandon, build, finished, history, opened, specification
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


class Flaky(InMemoryRepository):
    """A store that is away between two moments."""

    away_from = 1e9
    away_until = 0.0

    async def append(self, commit: Commit) -> None:
        if self.away_from <= asyncio.get_running_loop().time() < self.away_until:
            raise DependencyUnavailableError(dependency="database", problem="it is away")
        await super().append(commit)


async def test_a_store_that_goes_away_makes_a_deliberation_wait_and_loses_nothing() -> None:
    repository = Flaky(clock=VirtualClock())
    repository.away_from, repository.away_until = 0.5, 20.0
    async with opened(build(Canned({}), repository)) as house:
        ended = await finished(house, specification(5))
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.roll_call[AgentState.ANSWERED] == 5
    assert asyncio.get_running_loop().time() == pytest.approx(21, abs=2)


async def test_a_store_that_stays_away_past_the_deadline_leaves_a_deliberation_to_be_ended_when_it_is_back() -> None:
    repository = Flaky(clock=VirtualClock())
    repository.away_from, repository.away_until = 0.5, 100.0
    async with opened(build(Canned({}), repository)) as house:
        ended = await finished(house, specification(5, limits=Limits(deadline_s=5)))
        after = await finished(house, specification(5))
    assert (ended.status, ended.roll_call[AgentState.TIMED_OUT]) == (DeliberationStatus.INQUORATE, 5)
    assert {f.failure and f.failure.kind for f in ended.failures} == {"deadline"}
    assert after.status is DeliberationStatus.COMPLETED


class HeldBack(InMemoryRepository):
    """A store whose commits of records wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(clock=VirtualClock())
        self.gate = asyncio.Event()

    async def append(self, commit: Commit) -> WitnessSpan | None:
        if any(entry.record is not None for entry in commit.entries):
            await self.gate.wait()
        return await super().append(commit)


async def test_nothing_that_is_not_committed_can_be_seen_anywhere() -> None:
    repository = HeldBack()
    async with opened(build(Canned({}), repository)) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(30)
        assert await repository.records(accepted.id) == []
        assert (await house.service.get(accepted.id)).roll_call.asked == 0
        seen = [event.type for event in await repository.events(accepted.id, after=0, limit=500)]
        assert "agent.ended" not in seen
        assert house.pool.active_count == 3
        repository.gate.set()
        ended = await house.service.wait(accepted.id, timeout_s=None)
    assert ended.roll_call[AgentState.ANSWERED] == 3


async def test_waiting_gives_the_present_state_when_time_is_up() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        accepted = await house.service.submit(specification(1))
        assert (await house.service.wait(accepted.id, timeout_s=3)).status is DeliberationStatus.RUNNING


@pytest.mark.parametrize(
    "forged",
    [
        lambda item: replace(item, record=replace(item.record, content="forged")),
        lambda item: replace(item, record=replace(item.record, state=AgentState.ABSTAINED, answer=None)),
        lambda item: replace(item, record=replace(item.record, answer="none of the options")),
        lambda item: replace(item, record=replace(item.record, reasoning="because")),
        lambda item: replace(item, record=replace(item.record, model="a better one")),
        lambda item: replace(item, salts=bytes(64)),
        lambda item: replace(item, witnessed=replace(item.witnessed, leaf_hash=bytes(32))),
        lambda item: replace(item, witnessed=replace(item.witnessed, entry=item.witnessed.entry + b" ")),
        lambda item: replace(item, witnessed=LoggedEntry(-1, b"", b"")),
    ],
    ids=["content", "state", "answer", "reasoning", "model", "salts", "leaf hash", "entry", "no entry"],
)
async def test_outputs_are_read_only_while_they_match_what_was_committed(
    forged: Callable[[StoredRecord], StoredRecord],
) -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(2))
    outputs = DeliberationOutputService(house.repository)
    assert {output.record.content for output in await outputs.outputs(ended.id)} == {'{"answer": "yes"}'}

    class Forged(InMemoryRepository):
        async def records(
            self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
        ) -> Sequence[StoredRecord]:
            stored = await house.repository.records(deliberation_id, round_number=round_number, after=after)
            return [forged(item) for item in stored]

        async def get(self, deliberation_id: str) -> Deliberation | None:
            return await house.repository.get(deliberation_id)

    with pytest.raises(RecordMismatchError):
        await DeliberationOutputService(Forged(clock=VirtualClock())).outputs(ended.id)


async def test_the_same_seed_gives_the_same_outcome_twice() -> None:
    async def outcome() -> object:
        async with opened(build(AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 5), seed=7))) as house:
            return (await finished(house, specification(40))).outcome

    assert await outcome() == await outcome()
