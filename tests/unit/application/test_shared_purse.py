"""Who finds too little in the purse waits for the calls in flight, in turn, and no longer than there is hope."""

from __future__ import annotations

import asyncio

import pytest

from application.services.shared_purse import SharedPurse
from domain.errors.budget import BudgetExceededError
from domain.models.budget import Limits
from domain.models.money import Hold
from domain.models.purse import Purse


def _purse(tokens: int) -> SharedPurse:
    return SharedPurse(Purse(Limits(max_total_tokens=tokens)))


async def _waiting(purse: SharedPurse, tokens: int) -> asyncio.Task[None]:
    task = asyncio.create_task(purse.hold(Hold(tokens, 0)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_one_that_does_not_fit_now_is_served_when_another_has_taken_less_than_it_held() -> None:
    purse = _purse(10)
    await purse.hold(Hold(8, 0))
    task = await _waiting(purse, 5)
    assert not task.done()
    purse.settle(Hold(8, 0), tokens=5, cost=0)
    await task


async def test_one_that_cannot_fit_even_if_nothing_were_taken_is_refused_at_once() -> None:
    purse = _purse(10)
    await purse.hold(Hold(8, 0))
    with pytest.raises(BudgetExceededError):
        await purse.hold(Hold(11, 0))


async def test_one_is_refused_once_nothing_is_in_flight_that_could_be_given_back() -> None:
    purse = _purse(10)
    await purse.hold(Hold(8, 0))
    task = await _waiting(purse, 3)
    purse.settle(Hold(8, 0), tokens=8, cost=0)
    with pytest.raises(BudgetExceededError):
        await task


async def test_nobody_who_came_later_is_served_before_one_who_waits() -> None:
    purse = _purse(10)
    await purse.hold(Hold(6, 0))
    large = await _waiting(purse, 8)
    small = await _waiting(purse, 1)
    assert not small.done()
    purse.settle(Hold(6, 0), tokens=0, cost=0)
    await large
    await small


async def test_one_that_gives_up_lets_the_next_go_on() -> None:
    purse = _purse(10)
    await purse.hold(Hold(6, 0))
    large, small = await _waiting(purse, 8), await _waiting(purse, 2)
    large.cancel()
    await small
    assert large.cancelled()


async def test_one_that_is_cancelled_in_the_moment_it_is_served_holds_nothing() -> None:
    purse = _purse(10)
    await purse.hold(Hold(10, 0))
    task = await _waiting(purse, 10)
    purse.settle(Hold(10, 0), tokens=0, cost=0)
    task.cancel()
    await asyncio.wait([task])
    await purse.hold(Hold(10, 0))
