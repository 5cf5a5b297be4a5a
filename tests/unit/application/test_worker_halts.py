"""Halted, or in doubt of it, a worker begins nothing: what was queued stays queued, and what was at work ends or waits."""

from __future__ import annotations

import asyncio

from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.service_fixture import Canned, build, history, opened, specification
from tests.unit.application.abandoned_work import ends_of, left_by_the_dead
from tests.virtual_time import pass_time


async def test_queued_ones_stay_queued_while_halted_go_on_when_cleared_and_can_be_cancelled_meanwhile() -> None:
    absent = build(Canned({}))
    waiting, unwanted = [await absent.service.submit(specification(2)) for _ in range(2)]
    following = Canned({})
    house = build(following, absent.repository)
    await house.halt.set_halted("drill")
    async with opened(house):
        await pass_time(30)
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
    assert await ends_of(house, unwanted.id) == ["deliberation.cancelled"]


async def test_one_that_was_accepted_in_the_moment_of_a_halt_waits_as_well() -> None:
    orchestrator = Canned({})
    async with opened(build(orchestrator)) as house:
        accepted = await house.service.submit(specification(2))
        await house.halt.set_halted("drill")
        await pass_time(0.1)
        # Released, not left until its lease has run out.
        assert [each.deliberation_id for each in await house.repository.waiting(limit=9)] == [accepted.id]
        await pass_time(30)
        assert (await house.service.get(accepted.id)).status is DeliberationStatus.QUEUED
        assert (orchestrator.calls, await house.service.count_queued()) == ([], 1)
        await house.halt.clear()
        ended = await house.service.wait(accepted.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED


async def test_one_at_work_that_is_found_after_a_halt_ends_as_halted() -> None:
    first = build(Canned({"archon-0": None}), slots=2)
    running = await left_by_the_dead(first, agents=4, wave_size=3)
    following = Canned({})
    house = build(following, first.repository)
    await house.halt.set_halted("drill")
    async with opened(house):
        ended = await house.service.wait(running.id, timeout_s=None)
    assert (ended.status, ended.outcome, following.calls) == (DeliberationStatus.HALTED, None, [])
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.HALTED]) == (2, 1)


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
    running = await left_by_the_dead(first)
    following = Canned({})
    async with opened(build(following, first.repository, halt=FaultyHalt())) as second:
        await pass_time(10)
        assert (await second.service.get(running.id)).status is DeliberationStatus.RUNNING
        await second.service.cancel(running.id)
        ended = await second.service.wait(running.id, timeout_s=10)
    assert (ended.status, following.calls) == (DeliberationStatus.CANCELLED, [])


async def test_one_at_work_that_is_found_while_the_halt_is_in_doubt_pauses_and_goes_on() -> None:
    first = build(Canned({"archon-0": None}))
    running = await left_by_the_dead(first)
    following, halt = Canned({}), FaultyHalt()
    async with opened(build(following, first.repository, halt=halt)) as second:
        await pass_time(60)
        assert following.calls == []
        halt.sure.set()
        ended = await second.service.wait(running.id, timeout_s=None)
        assert (await history(second, running.id))[-1].type == "deliberation.completed"
    assert (ended.status, following.calls) == (DeliberationStatus.COMPLETED, ["archon-0"])
