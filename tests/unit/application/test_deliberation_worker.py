"""Workers in virtual time: what a dead one left is gone on with, what is another's is left alone, and nothing is done twice."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.deliberation_repository import Claim, Commit, LedgerCall, Renewal
from application.ports.process_registry import NoRegistry
from application.ports.work_queue import Job
from domain.errors.agent import AgentInvocationError
from domain.errors.deliberation import RecordMismatchError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.roll_call import AgentState
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, House, abandon, build, finished, history, opened, specification

_WORKER = "application.services.deliberation_worker"


class Registry(NoRegistry):
    """Knows of the deaths that a test tells it."""

    def __init__(self, own: str, *dead: str) -> None:
        super().__init__(own)
        self.gone = list(dead)

    def dead(self) -> list[str]:
        return list(self.gone)

    def forget(self, process: str) -> None:
        self.gone.remove(process)


class JumpingClock(VirtualClock):
    """A clock whose time of day is off by what a test says."""

    def __init__(self, off_s: float = 0.0) -> None:
        super().__init__()
        self.off_s = off_s

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.off_s)


def _time() -> float:
    return asyncio.get_running_loop().time()


async def _left_by_the_dead(
    house: House, *, agents: int = 3, limits: Limits | None = None, wave_size: int | None = None
) -> Deliberation:
    """One at work for 5 s under a process that is then killed."""
    await house.service.start()
    running = await house.service.submit(specification(agents, limits=limits, wave_size=wave_size))
    await asyncio.sleep(5)
    await abandon(house)
    return running


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR and each.name == _WORKER]


def _ends(kinds: list[str]) -> list[str]:
    ends = {f"deliberation.{status.value}" for status in DeliberationStatus if status.is_terminal}
    return [kind for kind in kinds if kind in ends]


async def _ends_of(house: House, deliberation_id: str) -> list[str]:
    events = await house.repository.events(deliberation_id, after=0, limit=10_000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return _ends([event.type for event in events])


async def test_what_a_process_known_to_be_dead_held_is_gone_on_with_at_once() -> None:
    first = build(Canned({"archon-0": None}), registry=Registry("ab"))
    running = await _left_by_the_dead(first)
    registry = Registry("cd", "ab")
    began = _time()
    async with opened(build(Canned({}), first.repository, registry=registry)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED
    assert _time() - began == pytest.approx(1, abs=0.2)
    assert registry.gone == []


async def test_a_death_that_becomes_known_later_is_heard_within_a_heartbeat() -> None:
    first = build(Canned({"archon-0": None}), registry=Registry("ab"))
    running = await _left_by_the_dead(first)
    registry = Registry("cd")
    async with opened(build(Canned({}), first.repository, registry=registry)) as second:
        await asyncio.sleep(0.5)
        registry.gone.append("ab")
        began = _time()
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED
    assert _time() - began <= 2.2


async def test_what_a_process_whose_death_nobody_knows_held_is_gone_on_with_when_its_lease_has_run_out() -> None:
    first = build(Canned({"archon-0": None}))
    running = await _left_by_the_dead(first)
    began = _time()
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        await asyncio.sleep(3)
        assert following.calls == []
        await second.service.wait(running.id, timeout_s=None)
    assert _time() - began <= 8


async def test_what_was_accepted_for_another_orchestrator_is_left_alone_and_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = build(Canned({"archon-0": None}), answers_as="other")
    running = await _left_by_the_dead(first)
    queued = await build(Canned({}), first.repository, answers_as="other").service.submit(specification(1))
    foreign, right = Canned({}), Canned({})
    async with opened(build(foreign, first.repository)) as house:
        await asyncio.sleep(60)
        assert (await house.service.get(running.id)).status is DeliberationStatus.RUNNING
        assert (await house.service.get(queued.id)).status is DeliberationStatus.QUEUED
        await house.queue.put(Job(running.id))
        await asyncio.sleep(1)
        warned = _errors(caplog)
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
    running = await _left_by_the_dead(first)
    tamper(first.repository._kept[running.id].calls)  # type: ignore[arg-type]
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert (ended.status, ended.outcome, following.calls) == (DeliberationStatus.FAILED, None, [])
    assert [(each.agent_id, each.failure and each.failure.kind) for each in ended.failures] == [
        ("archon-0", "ledger_mismatch")
    ]
    assert ended.roll_call[AgentState.ANSWERED] == 2
    assert await _ends_of(second, running.id) == ["deliberation.failed"]


async def test_a_tampered_record_is_not_gone_on_with_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    first = build(Canned({"archon-0": None}))
    running = await _left_by_the_dead(first)
    kept = first.repository._kept[running.id]
    place, stored = next(iter(kept.records.items()))
    kept.records[place] = replace(stored, record=replace(stored.record, content="forged"))
    before = len(kept.events)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        other = await finished(second, specification(2))
        await asyncio.sleep(60)
        with pytest.raises(RecordMismatchError):
            await second.service.get(running.id)
    assert (following.calls, len(kept.events)) == (["archon-0", "archon-1"], before)
    assert [running.id in message for message in _errors(caplog)] == [True]
    assert other.status is DeliberationStatus.COMPLETED


async def test_queued_ones_stay_queued_while_halted_go_on_when_cleared_and_can_be_cancelled_meanwhile() -> None:
    absent = build(Canned({}))
    waiting, unwanted = [await absent.service.submit(specification(2)) for _ in range(2)]
    following = Canned({})
    house = build(following, absent.repository)
    await house.halt.set_halted("drill")
    async with opened(house):
        await asyncio.sleep(30)
        states = {(await house.service.get(each.id)).status for each in (waiting, unwanted)}
        assert (states, following.calls) == ({DeliberationStatus.QUEUED}, [])
        # Nobody holds them, so any process may cancel them.
        free = {each.deliberation_id for each in await house.repository.waiting(limit=9)}
        assert free == {waiting.id, unwanted.id}
        assert await house.service.count_queued() == 2
        cancelled = await house.service.cancel(unwanted.id)
        await house.halt.clear()
        ended = await house.service.wait(waiting.id, timeout_s=None)
    assert (cancelled.status, ended.status) == (DeliberationStatus.CANCELLED, DeliberationStatus.COMPLETED)
    assert following.calls == ["archon-0", "archon-1"]
    assert await _ends_of(house, unwanted.id) == ["deliberation.cancelled"]


async def test_one_that_was_accepted_in_the_moment_of_a_halt_waits_as_well() -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        accepted = await house.service.submit(specification(2))
        await house.halt.set_halted("drill")
        await asyncio.sleep(0.1)
        # Released, not left until its lease has run out.
        assert [each.deliberation_id for each in await house.repository.waiting(limit=9)] == [accepted.id]
        await asyncio.sleep(30)
        assert (await house.service.get(accepted.id)).status is DeliberationStatus.QUEUED
        assert (orchestrator.calls, await house.service.count_queued()) == ([], 1)
        await house.halt.clear()
        ended = await house.service.wait(accepted.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED


async def test_one_at_work_that_is_found_after_a_halt_ends_as_halted() -> None:
    first = build(Canned({"archon-0": None}), slots=2)
    running = await _left_by_the_dead(first, agents=4, wave_size=3)
    following = Canned({})
    house = build(following, first.repository)
    await house.halt.set_halted("drill")
    async with opened(house):
        ended = await house.service.wait(running.id, timeout_s=None)
    assert (ended.status, ended.outcome, following.calls) == (DeliberationStatus.HALTED, None, [])
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.HALTED]) == (2, 1)


@pytest.mark.parametrize("answers_as", ["canned", "other"])
async def test_a_cancellation_that_was_asked_for_while_nobody_worked_is_heard_by_whoever_goes_on(
    answers_as: str,
) -> None:
    first = build(Canned({"archon-0": None}), answers_as=answers_as)
    running = await _left_by_the_dead(first)
    queued = await build(Canned({}), first.repository, answers_as=answers_as).service.submit(specification(1))
    for each in (running, queued):
        await first.repository.request_cancel(each.id)
    following = Canned({})
    async with opened(build(following, first.repository)) as second:
        ended = [await second.service.wait(each.id, timeout_s=None) for each in (running, queued)]
    assert [each.status for each in ended] == [DeliberationStatus.CANCELLED] * 2
    assert following.calls == []
    assert (ended[0].roll_call[AgentState.ANSWERED], ended[0].roll_call[AgentState.CANCELLED]) == (2, 1)


class Noting:
    """Passes on to an orchestrator, and notes who was called under which attempt, and what came back."""

    def __init__(self, orchestrator: object) -> None:
        self._orchestrator = orchestrator
        self.called: list[tuple[str, int]] = []
        self.answered: list[str] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.called.append((request.agent_id, request.attempt))
        output: AgentOutput = await self._orchestrator.invoke(request)  # type: ignore[attr-defined]
        self.answered.append(request.agent_id)
        return output


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
        await asyncio.sleep(seconds)
        await abandon(house)
        await asyncio.sleep(6)
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


@pytest.mark.parametrize(("off_s", "takes_s"), [(-3600.0, 60.0), (0.0, 60.0 - 15.0), (3600.0, 0.0)])
async def test_a_clock_that_is_off_never_gives_more_than_the_deadline(off_s: float, takes_s: float) -> None:
    first = build(Canned({"archon-0": None}))
    running = await _left_by_the_dead(first, limits=Limits(deadline_s=60, agent_timeout_s=1_000))
    await asyncio.sleep(10)
    following = Canned({"archon-0": None})
    began = _time()
    async with opened(build(following, first.repository, clock=JumpingClock(off_s))) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.roll_call[AgentState.TIMED_OUT] == 1
    assert _time() - began == pytest.approx(takes_s, abs=0.5)
    assert following.calls == (["archon-0"] if takes_s else [])


async def test_a_clock_that_jumps_during_the_work_moves_no_deadline() -> None:
    clock = JumpingClock()
    async with opened(build(Canned({"archon-0": None}), clock=clock)) as house:
        accepted = await house.service.submit(specification(2, limits=Limits(deadline_s=60, agent_timeout_s=1_000)))
        for off_s in (3600.0, -3600.0, 0.0):
            await asyncio.sleep(10)
            clock.off_s = off_s
        ended = await house.service.wait(accepted.id, timeout_s=None)
        assert ended.roll_call[AgentState.TIMED_OUT] == 1
        assert _time() == pytest.approx(60, abs=0.5)


async def test_a_lease_that_looks_run_out_by_a_clock_that_jumped_is_taken_over_once_and_fenced() -> None:
    clock = JumpingClock()
    repository = InMemoryRepository(clock=clock)
    slow, following = Canned({"archon-0": None}), Canned({})
    async with opened(build(slow, repository)) as first:
        running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=60)))
        await asyncio.sleep(5.5)
        clock.off_s = 3600.0
        async with opened(build(following, repository)) as second:
            second_saw = await second.service.wait(running.id, timeout_s=30)
            clock.off_s = 0.0
            await asyncio.sleep(100)
            assert await _ends_of(second, running.id) == ["deliberation.completed"]
    assert second_saw.status is DeliberationStatus.COMPLETED
    assert (slow.active, first.pool.active_count) == (0, 0)


async def test_a_job_for_an_unknown_or_long_ended_deliberation_is_nothing(caplog: pytest.LogCaptureFixture) -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        ended = await finished(house, specification(2))
        for strange in ("unknown", "", ended.id, ended.id):
            await house.queue.put(Job(strange))
        await asyncio.sleep(10)
        assert (house.service.running_count, await house.service.count_queued()) == (0, 0)
        after = await finished(house, specification(1))
        assert await _ends_of(house, ended.id) == ["deliberation.completed"]
    assert after.status is DeliberationStatus.COMPLETED
    assert (orchestrator.calls, _errors(caplog)) == (["archon-0", "archon-1", "archon-0"], [])


async def test_the_same_job_put_again_while_it_is_at_work_changes_nothing() -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        accepted = await house.service.submit(specification(2))
        for _ in range(3):
            await asyncio.sleep(0.3)
            await house.queue.put(Job(accepted.id))
        await asyncio.sleep(10)
        assert await _ends_of(house, accepted.id) == ["deliberation.completed"]
    assert orchestrator.calls == ["archon-0", "archon-1"]


class SlowHalt(HaltCheckerStub):
    """Takes a while to say whether it is halted."""

    async def is_halted(self) -> bool:
        await asyncio.sleep(0.01)
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
        assert await _ends_of(house, accepted.id) == ["deliberation.completed"]
    assert (ended.roll_call[AgentState.ANSWERED], sorted(orchestrator.calls)) == (
        3,
        ["archon-0", "archon-1", "archon-2"],
    )
    assert _errors(caplog) == []


@pytest.mark.parametrize("seed", range(25))
async def test_two_workers_on_one_deliberation_by_mistake_never_double_an_outcome(seed: int) -> None:
    draw = random.Random(seed)
    clock = JumpingClock()

    async def take_a_while() -> None:
        for _ in range(draw.randint(0, 3)):
            await asyncio.sleep(draw.choice([0, 0, 0.1, 0.7]))

    repository = InMemoryRepository(clock=clock, before_commit=take_a_while)
    orchestrators = [
        Noting(AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 4), seed=seed)) for _ in range(2)
    ]
    houses = [build(each, repository, slots=4) for each in orchestrators]
    async with opened(houses[0]), opened(houses[1]):
        accepted = [
            await each.service.submit(specification(6, limits=Limits(max_attempts=10, deadline_s=900)))
            for each in houses
        ]
        for _ in range(8):
            # Every lease looks run out for a moment, and each worker takes the other's for dead.
            await asyncio.sleep(draw.uniform(0, 3))
            clock.off_s += draw.choice([-1, 1]) * 3600
        clock.off_s = 0
        await asyncio.gather(*(houses[0].service.wait(each.id, timeout_s=None) for each in accepted))
        for each in accepted:
            assert await _ends_of(houses[0], each.id) == ["deliberation.completed"]
            ended = await houses[1].service.get(each.id)
            assert ended.roll_call[AgentState.ANSWERED] + ended.roll_call[AgentState.ABSTAINED] == 6
            ledger = [(call.agent_id, call.attempt) for call in repository._kept[each.id].calls.values()]
            assert len(ledger) == len(set(ledger))
    # Nothing was paid for that is not in a ledger, and nothing twice under one number.
    called = Counter(call for each in orchestrators for call in each.called)
    in_ledgers = Counter(
        (call.agent_id, call.attempt) for each in accepted for call in repository._kept[each.id].calls.values()
    )
    assert called <= in_ledgers
    assert [each.pool.active_count for each in houses] == [0, 0]


async def test_stopping_lets_calls_in_flight_be_finished_and_begins_no_other() -> None:
    orchestrator = Canned({})
    house = build(orchestrator, slots=2)
    await house.service.start()
    running = await house.service.submit(specification(5))
    await asyncio.sleep(0.5)
    await house.service.stop(drain_s=30)
    assert _time() == pytest.approx(1, abs=0.1)
    left = await house.service.get(running.id)
    assert (left.status, left.roll_call.asked) == (DeliberationStatus.RUNNING, 2)
    assert (orchestrator.calls, house.pool.active_count) == (["archon-0", "archon-1"], 0)
    claim = await house.repository.claim(running.id, lease="another/1", lease_s=5)
    assert isinstance(claim, Claim)
    assert {call.agent_id for call in claim.calls} >= {"archon-0", "archon-1"}


async def test_stopping_in_the_midst_of_the_last_calls_ends_a_deliberation_as_ever() -> None:
    house = build(Canned({}))
    await house.service.start()
    running = await house.service.submit(specification(5))
    await asyncio.sleep(0.5)
    await house.service.stop(drain_s=30)
    assert _time() == pytest.approx(1, abs=0.1)
    ended = await house.service.get(running.id)
    assert (ended.status, ended.roll_call[AgentState.ANSWERED]) == (DeliberationStatus.COMPLETED, 5)


async def test_stopping_begins_no_further_attempt() -> None:
    calls = 0

    class Refusing(Canned):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            nonlocal calls
            calls += 1
            await asyncio.sleep(1)
            raise AgentInvocationError("reset", kind="connection_lost", retryable=True)

    house = build(Refusing({}))
    await house.service.start()
    running = await house.service.submit(specification(1, limits=Limits(max_attempts=5)))
    await asyncio.sleep(0.5)
    await house.service.stop(drain_s=30)
    assert (calls, await house.repository.records(running.id)) == (1, [])
    async with opened(build(Canned({}), house.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert [(each.state, each.attempts) for each in ended.rounds[0].records] == [(AgentState.ANSWERED, 2)]


async def test_calls_that_outlast_the_drain_are_cancelled_and_left_to_be_made_again() -> None:
    orchestrator = Canned({"archon-0": None})
    house = build(orchestrator)
    await house.service.start()
    running = await house.service.submit(specification(2))
    queued = [await house.service.submit(specification(1)) for _ in range(12)]
    await asyncio.sleep(0.5)
    await house.service.stop(drain_s=3)
    assert _time() == pytest.approx(3.5, abs=0.2)
    assert orchestrator.active == 0
    free = {each.deliberation_id for each in await house.repository.waiting(limit=99)}
    assert free == {running.id, *(each.id for each in queued)}
    assert [item.record.agent_id for item in await house.repository.records(running.id)] == ["archon-1"]


class StuckStore(InMemoryRepository):
    """A store whose commits of agents never come back."""

    async def append(self, commit: Commit) -> WitnessSpan | None:
        if any(entry.record is not None for entry in commit.entries):
            await asyncio.Event().wait()
        return await super().append(commit)


async def test_what_could_not_even_be_stopped_in_time_is_released_all_the_same() -> None:
    house = build(Canned({}), StuckStore(clock=VirtualClock()))
    await house.service.start()
    running = await house.service.submit(specification(2))
    await asyncio.sleep(2)
    await house.service.stop(drain_s=1)
    assert _time() <= 10
    assert [each.deliberation_id for each in await house.repository.waiting(limit=9)] == [running.id]


class SlowClaims(InMemoryRepository):
    """A store in which a claim takes a second."""

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        await asyncio.sleep(1)
        return await super().claim(deliberation_id, lease=lease, lease_s=lease_s)


async def test_what_is_claimed_in_the_midst_of_stopping_is_not_begun() -> None:
    repository = SlowClaims(clock=VirtualClock())
    waiting = await build(Canned({}), repository).service.submit(specification(2))
    await repository.release({waiting.id: repository._kept[waiting.id].lease or ""})
    following = Canned({})
    house = build(following, repository)
    await house.service.start()
    await asyncio.sleep(0.5)
    await house.service.stop(drain_s=30)
    assert following.calls == []
    assert (await house.service.get(waiting.id)).status is DeliberationStatus.QUEUED
    assert [each.deliberation_id for each in await repository.waiting(limit=9)] == [waiting.id]


class UnsteadyLeases(InMemoryRepository):
    """A store in which some renewals go wrong."""

    troubles: list[Exception]

    async def renew(self, held: Mapping[str, str], *, lease_s: float) -> Renewal:
        if self.troubles:
            raise self.troubles.pop(0)
        return await super().renew(held, lease_s=lease_s)


async def test_the_heartbeat_goes_on_after_a_store_that_was_away_and_after_any_error() -> None:
    repository = UnsteadyLeases(clock=VirtualClock())
    away = DependencyUnavailableError(dependency="database", problem="it is away")
    repository.troubles = [away, RuntimeError("a fault"), away]
    following = Canned({})
    async with opened(build(Canned({"archon-0": None}), repository)) as first, opened(build(following, repository)):
        accepted = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=60)))
        ended = await first.service.wait(accepted.id, timeout_s=None)
    assert repository.troubles == []
    assert (ended.roll_call[AgentState.TIMED_OUT], following.calls) == (1, [])


class AwayQueue(EmbeddedQueue):
    """A queue that takes half a minute to say that it is away, once it is."""

    is_away = False

    async def put(self, job: Job) -> None:
        if self.is_away:
            await asyncio.sleep(30)
            raise DependencyUnavailableError(dependency="queue", problem="it is away")
        await super().put(job)


async def test_a_queue_that_is_away_costs_nobody_a_lease_and_loses_nothing_that_was_accepted() -> None:
    queue = AwayQueue()
    following = Canned({})
    async with opened(build(Canned({"archon-0": None}), queue=queue)) as first:
        running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=100)))
        await asyncio.sleep(1)
        queue.is_away = True
        absent = build(Canned({}), first.repository, answers_as="canned")
        left = await absent.service.submit(specification(1))
        async with opened(build(following, first.repository)) as second:
            taken = await second.service.wait(left.id, timeout_s=None)
            ended = await first.service.wait(running.id, timeout_s=None)
            queue.is_away = False
    assert (taken.status, ended.roll_call[AgentState.TIMED_OUT]) == (DeliberationStatus.COMPLETED, 1)
    assert following.calls == ["archon-0"]


class FaultyHalt(HaltCheckerStub):
    """In doubt for as long as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = asyncio.Event()

    async def is_halted(self) -> bool:
        return not self.sure.is_set() or await super().is_halted()

    async def wait_until_open(self) -> bool:
        await self.sure.wait()
        return await super().wait_until_open()


async def test_one_at_work_that_is_found_while_the_halt_is_in_doubt_can_be_cancelled() -> None:
    first = build(Canned({"archon-0": None}))
    running = await _left_by_the_dead(first)
    following = Canned({})
    async with opened(build(following, first.repository, halt=FaultyHalt())) as second:
        await asyncio.sleep(10)
        assert (await second.service.get(running.id)).status is DeliberationStatus.RUNNING
        await second.service.cancel(running.id)
        ended = await second.service.wait(running.id, timeout_s=10)
    assert (ended.status, following.calls) == (DeliberationStatus.CANCELLED, [])


async def test_one_at_work_that_is_found_while_the_halt_is_in_doubt_pauses_and_goes_on() -> None:
    first = build(Canned({"archon-0": None}))
    running = await _left_by_the_dead(first)
    following, halt = Canned({}), FaultyHalt()
    async with opened(build(following, first.repository, halt=halt)) as second:
        await asyncio.sleep(60)
        assert following.calls == []
        halt.sure.set()
        ended = await second.service.wait(running.id, timeout_s=None)
        assert (await history(second, running.id))[-1].type == "deliberation.completed"
    assert (ended.status, following.calls) == (DeliberationStatus.COMPLETED, ["archon-0"])
