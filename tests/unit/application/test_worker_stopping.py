"""A worker that is stopped finishes its calls in flight, begins no other, and releases all that it held."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.deliberation_repository import Claim, Commit
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.roll_call import AgentState
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, House, build, opened, specification
from tests.virtual_time import pass_time, time_passed


async def _stopped_at_work(house: House) -> Deliberation:
    """A deliberation of five as a house leaves it that is stopped while the first calls of a second each are in flight."""
    await house.service.start()
    running = await house.service.submit(specification(5))
    await pass_time(0.5)
    await house.service.stop(drain_s=30)
    assert time_passed() == pytest.approx(1, abs=0.1)
    return await house.service.get(running.id)


async def test_stopping_lets_calls_in_flight_be_finished_and_begins_no_other() -> None:
    orchestrator = Canned({})
    house = build(orchestrator, slots=2)
    left = await _stopped_at_work(house)
    assert (left.status, left.roll_call.asked) == (DeliberationStatus.RUNNING, 2)
    assert (orchestrator.calls, house.pool.active_count) == (["archon-0", "archon-1"], 0)
    claim = await house.repository.claim(left.id, lease="another/1", lease_s=5)
    assert isinstance(claim, Claim)
    assert {call.agent_id for call in claim.calls} >= {"archon-0", "archon-1"}


async def test_stopping_in_the_midst_of_the_last_calls_ends_a_deliberation_as_ever() -> None:
    house = build(Canned({}))
    ended = await _stopped_at_work(house)
    assert (ended.status, ended.roll_call[AgentState.ANSWERED]) == (DeliberationStatus.COMPLETED, 5)


async def test_stopping_begins_no_further_attempt() -> None:
    calls = 0

    class Refusing(Canned):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            nonlocal calls
            calls += 1
            await pass_time(1)
            raise AgentInvocationError("reset", kind="connection_lost", retryable=True)

    house = build(Refusing({}))
    await house.service.start()
    running = await house.service.submit(specification(1, limits=Limits(max_attempts=5)))
    await pass_time(0.5)
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
    await pass_time(0.5)
    await house.service.stop(drain_s=3)
    assert time_passed() == pytest.approx(3.5, abs=0.2)
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
    await pass_time(2)
    await house.service.stop(drain_s=1)
    assert time_passed() <= 10
    assert [each.deliberation_id for each in await house.repository.waiting(limit=9)] == [running.id]


class SlowClaims(InMemoryRepository):
    """A store in which a claim takes a second."""

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        await pass_time(1)
        return await super().claim(deliberation_id, lease=lease, lease_s=lease_s)


async def test_what_is_claimed_in_the_midst_of_stopping_is_not_begun() -> None:
    repository = SlowClaims(clock=VirtualClock())
    waiting = await build(Canned({}), repository).service.submit(specification(2))
    await repository.release({waiting.id: repository._kept[waiting.id].lease or ""})
    following = Canned({})
    house = build(following, repository)
    await house.service.start()
    await pass_time(0.5)
    await house.service.stop(drain_s=30)
    assert following.calls == []
    assert (await house.service.get(waiting.id)).status is DeliberationStatus.QUEUED
    assert [each.deliberation_id for each in await repository.waiting(limit=9)] == [waiting.id]
