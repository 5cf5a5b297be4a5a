"""A cancellation that comes while the end of a deliberation is being stored: whoever asked is not told that it was heeded."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.deliberation_repository import Commit
from domain.errors.deliberation import DeliberationEndedError
from domain.models.deliberation import DeliberationStatus, WitnessSpan
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, House, build, opened, specification
from tests.virtual_time import pass_time, time_passed


class Slow(InMemoryRepository):
    """Takes so many seconds to store the end of a deliberation."""

    def __init__(self, seconds: float) -> None:
        super().__init__(clock=VirtualClock())
        self.seconds = seconds

    async def append(self, commit: Commit) -> WitnessSpan | None:
        if commit.deliberation is not None and commit.deliberation.status.is_terminal:
            await pass_time(self.seconds)
        return await super().append(commit)


async def _about_to_end(house: House) -> str:
    """One whose agents have answered, after a second, and whose outcome is on its way to the store."""
    accepted = await house.service.submit(specification(3))
    await pass_time(1.5)
    return accepted.id


async def test_a_cancellation_that_the_outcome_forestalled_is_refused_with_the_state_in_which_it_ended() -> None:
    async with opened(build(Canned({}), Slow(1))) as house:
        late = await _about_to_end(house)
        with pytest.raises(DeliberationEndedError) as refused:
            await house.service.cancel(late)
        ended = await house.service.get(late)
    assert refused.value.status == ended.status.value == "completed"


async def test_all_who_cancel_too_late_at_once_are_told_the_same() -> None:
    async with opened(build(Canned({}), Slow(1))) as house:
        late = await _about_to_end(house)
        told = await asyncio.gather(*(house.service.cancel(late) for _ in range(3)), return_exceptions=True)
    assert [getattr(each, "status", None) for each in told] == ["completed"] * 3
    assert all(isinstance(each, DeliberationEndedError) for each in told)


async def test_nobody_who_cancels_waits_long_for_a_store_that_does_not_take_the_end() -> None:
    async with opened(build(Canned({}), Slow(60))) as house:
        late = await _about_to_end(house)
        began = time_passed()
        asked = await house.service.cancel(late)
        assert time_passed() - began <= 5
        assert asked.status is DeliberationStatus.RUNNING


async def test_a_cancellation_while_calls_are_under_way_waits_for_nothing() -> None:
    async with opened(build(Canned({}), Slow(1))) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(0.5)
        began = time_passed()
        await house.service.cancel(accepted.id)
        assert time_passed() == began
        ended = await house.service.wait(accepted.id, timeout_s=None)
    assert ended.status is DeliberationStatus.CANCELLED
