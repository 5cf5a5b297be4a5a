"""Workers in virtual time: what a dead one left is gone on with, what is another's is left alone, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from application.ports.deliberation_repository import LedgerCall
from application.ports.work_queue import Job
from domain.errors.deliberation import RecordMismatchError
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.service_fixture import Canned, abandon, build, finished, opened, specification
from tests.unit.application.abandoned_work import Noting, Registry, ends_of, errors, left_by_the_dead
from tests.virtual_time import pass_time, time_passed


async def test_what_a_process_known_to_be_dead_held_is_gone_on_with_at_once() -> None:
    first = build(Canned({"archon-0": None}), registry=Registry("ab"))
    running = await left_by_the_dead(first)
    registry = Registry("cd", "ab")
    began = time_passed()
    async with opened(build(Canned({}), first.repository, registry=registry)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED
    assert time_passed() - began == pytest.approx(1, abs=0.2)
    assert registry.gone == []


async def test_a_death_that_becomes_known_later_is_heard_within_a_heartbeat() -> None:
    first = build(Canned({"archon-0": None}), registry=Registry("ab"))
    running = await left_by_the_dead(first)
    registry = Registry("cd")
    async with opened(build(Canned({}), first.repository, registry=registry)) as second:
        await pass_time(0.5)
        registry.gone.append("ab")
        began = time_passed()
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED
    assert time_passed() - began <= 2.2


async def test_what_a_process_whose_death_nobody_knows_held_is_gone_on_with_when_its_lease_has_run_out() -> None:
    first = build(Canned({"archon-0": None}))
    running = await left_by_the_dead(first)
    began = time_passed()
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        await pass_time(3)
        assert following.calls == []
        await second.service.wait(running.id, timeout_s=None)
    assert time_passed() - began <= 8


async def test_what_was_accepted_for_another_orchestrator_is_left_alone_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = build(Canned({"archon-0": None}), answers_as="other")
    running = await left_by_the_dead(first)
    queued = await build(Canned({}), first.repository, answers_as="other").service.submit(specification(1))
    foreign, right = Canned({}), Canned({})
    async with opened(build(foreign, first.repository)) as house:
        await pass_time(60)
        assert (await house.service.get(running.id)).status is DeliberationStatus.RUNNING
        assert (await house.service.get(queued.id)).status is DeliberationStatus.QUEUED
        await house.queue.put(Job(running.id))
        await pass_time(1)
        warned = errors(caplog)
        assert [("accepted for 'other'" in message, "'canned' answers" in message) for message in warned] == [
            (True, True)
        ] * 2
        async with opened(build(right, first.repository, answers_as="other")) as owner:
            ended = [await owner.service.wait(each.id, timeout_s=None) for each in (running, queued)]
    assert {each.status for each in ended} == {DeliberationStatus.COMPLETED}
    assert (foreign.calls, sorted(right.calls)) == ([], ["archon-0", "archon-0"])


def _without_the_last(calls: dict[object, LedgerCall]) -> None:
    calls.popitem()


def _changed(**facts: object) -> Callable[[dict[object, LedgerCall]], None]:
    def change(calls: dict[object, LedgerCall]) -> None:
        key, call = next(iter(calls.items()))
        calls[key] = replace(call, **facts)  # type: ignore[arg-type]

    return change


def _with_another(calls: dict[object, LedgerCall]) -> None:
    calls["forged"] = replace(next(iter(calls.values())), attempt=2, leaf_index=99)


@pytest.mark.parametrize(
    "tamper",
    [
        _without_the_last,
        _with_another,
        _changed(attempt=2),
        _changed(prompt_sha256="00" * 32),
        _changed(agent_id="archon-9"),
        _changed(leaf_index=0),
        _changed(purpose="repair"),
    ],
    ids=["removed", "added", "attempt", "prompt", "agent", "leaf", "purpose"],
)
async def test_a_tampered_ledger_ends_a_deliberation_as_failed_and_nobody_is_called(
    tamper: Callable[[dict[object, LedgerCall]], None],
) -> None:
    first = build(Canned({"archon-0": None}))
    running = await left_by_the_dead(first)
    tamper(first.repository._kept[running.id].calls)  # type: ignore[arg-type]
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert (ended.status, ended.outcome, following.calls) == (DeliberationStatus.FAILED, None, [])
    assert [(each.agent_id, each.failure and each.failure.kind) for each in ended.failures] == [
        ("archon-0", "ledger_mismatch")
    ]
    assert ended.roll_call[AgentState.ANSWERED] == 2
    assert await ends_of(second, running.id) == ["deliberation.failed"]


async def test_a_tampered_record_is_not_gone_on_with_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    first = build(Canned({"archon-0": None}))
    running = await left_by_the_dead(first)
    kept = first.repository._kept[running.id]
    place, stored = next(iter(kept.records.items()))
    kept.records[place] = replace(stored, record=replace(stored.record, content="forged"))
    before = len(kept.events)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        other = await finished(second, specification(2))
        await pass_time(60)
        with pytest.raises(RecordMismatchError):
            await second.service.get(running.id)
    assert (following.calls, len(kept.events)) == (["archon-0", "archon-1"], before)
    assert [running.id in message for message in errors(caplog)] == [True]
    assert other.status is DeliberationStatus.COMPLETED


@pytest.mark.parametrize("answers_as", ["canned", "other"])
async def test_a_cancellation_that_was_asked_for_while_nobody_worked_is_heard_by_whoever_goes_on(
    answers_as: str,
) -> None:
    first = build(Canned({"archon-0": None}), answers_as=answers_as)
    running = await left_by_the_dead(first)
    queued = await build(Canned({}), first.repository, answers_as=answers_as).service.submit(specification(1))
    for each in (running, queued):
        await first.repository.request_cancel(each.id)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        ended = [await second.service.wait(each.id, timeout_s=None) for each in (running, queued)]
    assert [each.status for each in ended] == [DeliberationStatus.CANCELLED] * 2
    assert following.calls == []
    assert (ended[0].roll_call[AgentState.ANSWERED], ended[0].roll_call[AgentState.CANCELLED]) == (2, 1)


def _stub() -> Noting:
    return Noting(AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 5), seed=3))


def _result(ended: Deliberation) -> object:
    answers = [(each.agent_id, each.state, each.answer, each.reasoning) for each in ended.rounds[0].records]
    return ended.status, ended.outcome, ended.roll_call, answers


@pytest.mark.parametrize("killed_after", [[0.0], [0.01], [2.0], [6.0], [9.0], [1.0, 8.0, 3.0], [4.0, 0.1, 0.1]])
async def test_what_was_cut_off_goes_on_with_its_wave_and_ends_as_it_would_have_undisturbed(
    killed_after: list[float],
) -> None:
    spec = replace(specification(12, wave_size=5, limits=Limits(max_attempts=5)), seed=7)
    async with opened(build(_stub())) as undisturbed:
        expected = await finished(undisturbed, spec)
    house = build(_stub())
    repository, running, notes = house.repository, None, []
    for seconds in killed_after:
        orchestrator = _stub()
        notes.append(orchestrator)
        house = build(orchestrator, repository)
        await house.service.start()
        running = running or await house.service.submit(spec)
        await pass_time(seconds)
        await abandon(house)
        await pass_time(6)
    notes.append(_stub())
    assert running is not None
    async with opened(build(notes[-1], repository)) as last:
        ended = await last.service.wait(running.id, timeout_s=None)
    assert _result(ended) == _result(expected)
    called = [call for each in notes for call in each.called]
    assert len(called) == len(set(called))
    waves = [int(agent_id.rpartition("-")[2]) // 5 for agent_id, _ in called]
    assert waves == sorted(waves)
    # Whatever was answered and recorded is not asked for again.
    assert set(Counter(agent for each in notes for agent in each.answered).values()) == {1}


async def test_a_job_for_an_unknown_or_long_ended_deliberation_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        ended = await finished(house, specification(2))
        for strange in ("unknown", "", ended.id, ended.id):
            await house.queue.put(Job(strange))
        await pass_time(10)
        assert (house.service.running_count, await house.service.count_queued()) == (0, 0)
        after = await finished(house, specification(1))
        assert await ends_of(house, ended.id) == ["deliberation.completed"]
    assert after.status is DeliberationStatus.COMPLETED
    assert (orchestrator.calls, errors(caplog)) == (["archon-0", "archon-1", "archon-0"], [])


async def test_the_same_job_put_again_while_it_is_at_work_changes_nothing() -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        accepted = await house.service.submit(specification(2))
        for _ in range(3):
            await pass_time(0.3)
            await house.queue.put(Job(accepted.id))
        await pass_time(10)
        assert await ends_of(house, accepted.id) == ["deliberation.completed"]
    assert orchestrator.calls == ["archon-0", "archon-1"]


class SlowHalt(HaltCheckerStub):
    """Takes a while to say whether it is halted."""

    async def is_halted(self) -> bool:
        await pass_time(0.01)
        return await super().is_halted()


class Twice(EmbeddedQueue):
    """Hands every job out twice at once."""

    async def serve(self, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int, stopping: asyncio.Event) -> None:
        async def handle_twice(job: Job) -> None:
            await asyncio.gather(handle(job), handle(job))

        await super().serve(handle_twice, at_a_time=at_a_time, stopping=stopping)


@pytest.mark.parametrize("accepts_here", [True, False])
async def test_a_job_that_is_handed_out_twice_at_once_is_worked_on_once(
    caplog: pytest.LogCaptureFixture, accepts_here: bool
) -> None:
    orchestrator = Canned({})
    house = build(orchestrator, queue=Twice(), halt=SlowHalt())
    absent = house if accepts_here else build(Canned({}), house.repository)
    accepted = None if accepts_here else await absent.service.submit(specification(3))
    async with opened(house):
        accepted = accepted or await absent.service.submit(specification(3))
        ended = await house.service.wait(accepted.id, timeout_s=None)
        assert await ends_of(house, accepted.id) == ["deliberation.completed"]
    assert (ended.roll_call[AgentState.ANSWERED], sorted(orchestrator.calls)) == (
        3,
        ["archon-0", "archon-1", "archon-2"],
    )
    assert errors(caplog) == []
