"""A deliberation is one worker's for as long as its lease runs, whatever clocks, the store and the queue do meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping

import pytest

from application.ports.deliberation_repository import Renewal
from application.ports.work_queue import Job
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Limits
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, opened, specification
from tests.unit.application.abandoned_work import JumpingClock, Noting, ends_of, left_by_the_dead
from tests.virtual_time import pass_time, time_passed


@pytest.mark.parametrize(("off_s", "takes_s"), [(-3600.0, 60.0), (0.0, 60.0 - 15.0), (3600.0, 0.0)])
async def test_a_clock_that_is_off_never_gives_more_than_the_deadline(off_s: float, takes_s: float) -> None:
    first = build(Canned({"archon-0": None}))
    running = await left_by_the_dead(first, limits=Limits(deadline_s=60, agent_timeout_s=1_000))
    await pass_time(10)
    following = Canned({"archon-0": None})
    began = time_passed()
    async with opened(build(following, first.repository, clock=JumpingClock(off_s))) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.roll_call[AgentState.TIMED_OUT] == 1
    assert time_passed() - began == pytest.approx(takes_s, abs=0.5)
    assert following.calls == (["archon-0"] if takes_s else [])


async def test_a_clock_that_jumps_during_the_work_moves_no_deadline() -> None:
    clock = JumpingClock()
    async with opened(build(Canned({"archon-0": None}), clock=clock)) as house:
        accepted = await house.service.submit(specification(2, limits=Limits(deadline_s=60, agent_timeout_s=1_000)))
        for off_s in (3600.0, -3600.0, 0.0):
            await pass_time(10)
            clock.off_s = off_s
        ended = await house.service.wait(accepted.id, timeout_s=None)
        assert ended.roll_call[AgentState.TIMED_OUT] == 1
        assert time_passed() == pytest.approx(60, abs=0.5)


async def test_a_lease_that_looks_run_out_by_a_clock_that_jumped_is_taken_over_once_and_fenced() -> None:
    clock = JumpingClock()
    repository = InMemoryRepository(clock=clock)
    slow, following = Canned({"archon-0": None}), Canned({})
    async with opened(build(slow, repository)) as first:
        running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=60)))
        await pass_time(5.5)
        clock.off_s = 3600.0
        async with opened(build(following, repository)) as second:
            second_saw = await second.service.wait(running.id, timeout_s=30)
            clock.off_s = 0.0
            await pass_time(100)
            assert await ends_of(second, running.id) == ["deliberation.completed"]
    assert second_saw.status is DeliberationStatus.COMPLETED
    assert (slow.active, first.pool.active_count) == (0, 0)


@pytest.mark.parametrize("seed", range(25))
async def test_two_workers_on_one_deliberation_by_mistake_never_double_an_outcome(seed: int) -> None:
    draw = random.Random(seed)
    clock = JumpingClock()

    async def take_a_while() -> None:
        for _ in range(draw.randint(0, 3)):
            await pass_time(draw.choice([0, 0, 0.1, 0.7]))

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
            await pass_time(draw.uniform(0, 3))
            clock.off_s += draw.choice([-1, 1]) * 3600
        clock.off_s = 0
        await asyncio.gather(*(houses[0].service.wait(each.id, timeout_s=None) for each in accepted))
        for each in accepted:
            assert await ends_of(houses[0], each.id) == ["deliberation.completed"]
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
            await pass_time(30)
            raise DependencyUnavailableError(dependency="queue", problem="it is away")
        await super().put(job)


async def test_a_queue_that_is_away_costs_nobody_a_lease_and_loses_nothing_that_was_accepted() -> None:
    queue = AwayQueue()
    following = Canned({})
    async with opened(build(Canned({"archon-0": None}), queue=queue)) as first:
        running = await first.service.submit(specification(2, limits=Limits(agent_timeout_s=100)))
        await pass_time(1)
        queue.is_away = True
        absent = build(Canned({}), first.repository, answers_as="canned")
        left = await absent.service.submit(specification(1))
        async with opened(build(following, first.repository)) as second:
            taken = await second.service.wait(left.id, timeout_s=None)
            ended = await first.service.wait(running.id, timeout_s=None)
            queue.is_away = False
    assert (taken.status, ended.roll_call[AgentState.TIMED_OUT]) == (DeliberationStatus.COMPLETED, 1)
    assert following.calls == ["archon-0"]
