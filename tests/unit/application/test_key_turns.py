"""Whose turn it is to spend of a key: who finds nothing left waits for calls in flight, and for nobody else."""

from __future__ import annotations

import asyncio

import pytest

from application.services.key_turns import KeyTurns
from domain.errors.budget import BudgetExceededError


class Budget:
    """So many calls fit at a time."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tries = 0

    async def reserve(self) -> None:
        self.tries += 1
        await asyncio.sleep(0)
        if not self.room:
            raise BudgetExceededError(budget="key_day", limit=1, used=1, wanted=1)
        self.room -= 1


async def _waiting(turns: KeyTurns, budget: Budget, key_name: str = "k") -> asyncio.Task[None]:
    task = asyncio.create_task(turns.take(key_name, budget.reserve))
    await _settle()
    return task


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_that_finds_nothing_left_is_served_when_a_call_lands() -> None:
    turns, budget = KeyTurns(), Budget(1)
    await turns.take("k", budget.reserve)
    task = await _waiting(turns, budget)
    assert not task.done()
    budget.room = 1
    turns.land("k")
    await task


async def test_with_nothing_in_flight_it_is_refused_at_once() -> None:
    with pytest.raises(BudgetExceededError):
        await KeyTurns().take("k", Budget(0).reserve)


async def test_calls_of_another_key_are_not_waited_for() -> None:
    turns = KeyTurns()
    await turns.take("other", Budget(1).reserve)
    with pytest.raises(BudgetExceededError):
        await turns.take("k", Budget(0).reserve)


async def test_those_who_wait_are_refused_one_after_the_other_once_the_last_call_has_landed() -> None:
    turns, budget = KeyTurns(), Budget(1)
    await turns.take("k", budget.reserve)
    tasks = [await _waiting(turns, budget) for _ in range(3)]
    turns.land("k")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [BudgetExceededError] * 3


async def test_one_landing_serves_as_many_as_there_is_room_for_and_tries_no_more_than_one_beyond() -> None:
    turns, budget = KeyTurns(), Budget(2)
    for _ in range(2):
        await turns.take("k", budget.reserve)
    tasks = [await _waiting(turns, budget) for _ in range(5)]
    budget.room, budget.tries = 2, 0
    turns.land("k")
    await _settle()
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    assert budget.tries == 3
    for task in tasks[2:]:
        task.cancel()
    await asyncio.wait(tasks)


async def test_who_came_first_stays_first_although_it_was_refused_in_between() -> None:
    turns, budget = KeyTurns(), Budget(2)
    for _ in range(2):
        await turns.take("k", budget.reserve)
    first, second = await _waiting(turns, budget), await _waiting(turns, budget)
    turns.land("k")
    await _settle()
    assert not first.done()
    budget.room = 1
    turns.land("k")
    await first
    await _settle()
    assert not second.done()
    second.cancel()
    await asyncio.wait([second])


async def test_one_that_gives_up_in_its_turn_passes_it_on() -> None:
    turns, budget = KeyTurns(), Budget(1)
    await turns.take("k", budget.reserve)
    first, second = await _waiting(turns, budget), await _waiting(turns, budget)
    budget.room = 1
    turns.land("k")
    first.cancel()
    await second
    assert first.cancelled()
