"""Waiting for a turn: fair, bounded, counted, and nothing lost when a wait is given up."""

from __future__ import annotations

import asyncio
import random

import pytest

from application.services.slot_queue import SlotQueue, Turn
from domain.errors.agent import AgentPoolExhaustedError
from domain.models.agent_pool import AgentPool


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def called(queue: SlotQueue, agent: str, batch: str = "b") -> Turn:
    turn = Turn(agent, batch)
    await queue.come_near(turn)
    await queue.take(turn)
    return turn


async def test_turns_go_round_between_batches_and_in_order_within_one() -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    order: list[str] = []

    async def be_called(agent: str, batch: str) -> None:
        turn = await called(queue, agent, batch)
        order.append(f"{batch}{agent}")
        queue.leave(turn)

    pool.acquire("holder")
    tasks = [asyncio.create_task(be_called(agent, batch)) for batch in "ab" for agent in "123"]
    await settle()
    assert queue.waiting_count == 6
    pool.release("holder")
    await asyncio.gather(*tasks)
    # One comes near ahead of its turn before the second batch is there; from then on they alternate.
    assert order == ["a1", "a2", "b1", "a3", "b2", "b3"]
    assert (queue.waiting_count, pool.active_count) == (0, 0)


async def test_a_few_come_near_ahead_of_their_turn_and_no_more() -> None:
    queue = SlotQueue(AgentPool(max_concurrent=16))
    near: list[str] = []

    async def approach(agent: str) -> None:
        turn = Turn(agent, "b")
        await queue.come_near(turn)
        near.append(agent)
        await queue.take(turn)

    tasks = [asyncio.create_task(approach(str(n))) for n in range(40)]
    await settle()
    assert near == [str(n) for n in range(18)]
    assert (queue.pool.active_count, queue.waiting_count) == (16, 24)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_next_is_called_when_a_call_ends_and_counted_when_its_slot_is_left() -> None:
    pool = AgentPool(max_concurrent=1)
    told: list[int] = []
    queue = SlotQueue(pool, granted=lambda: told.append(pool.active_count))
    first = await called(queue, "a")
    waiting = asyncio.create_task(called(queue, "c"))
    await settle()
    assert not waiting.done()
    queue.end_call(first)
    second = await waiting
    assert (pool.active_agents, queue.is_counted(second)) == (frozenset({"a"}), False)
    queue.end_call(second)
    counting = asyncio.create_task(queue.be_counted(second))
    await settle()
    assert not counting.done()
    queue.leave(first)
    await counting
    assert (pool.active_agents, told) == (frozenset({"c"}), [1, 1])
    queue.leave(second)
    assert pool.active_count == 0


@pytest.mark.parametrize("stage", ["waiting", "near", "ready", "calling", "ended"])
async def test_whoever_leaves_at_any_stage_leaves_nothing_behind(stage: str) -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    holder = await called(queue, "holder")
    ahead = Turn("ahead", "b")
    await queue.come_near(ahead)
    turn = Turn("a", "b")
    wait = asyncio.create_task(queue.come_near(turn))
    await settle()
    if stage != "waiting":
        queue.leave(ahead)
        await wait
    if stage in {"ready", "calling", "ended"}:
        wait = asyncio.create_task(queue.take(turn))
        await settle()
    if stage in {"calling", "ended"}:
        queue.end_call(holder)
        await wait
    if stage == "ended":
        queue.end_call(turn)
    wait.cancel()
    await asyncio.gather(wait, return_exceptions=True)
    queue.leave(turn)
    queue.leave(turn)
    queue.leave(ahead)
    queue.leave(holder)
    assert (queue.waiting_count, pool.active_count) == (0, 0)
    queue.leave(await called(queue, "next"))
    assert pool.active_count == 0


async def test_slots_that_somebody_else_holds_on_the_pool_are_not_used() -> None:
    pool = AgentPool(max_concurrent=2)
    pool.acquire("somebody else")
    queue = SlotQueue(pool)
    first = await called(queue, "a")
    waiting = asyncio.create_task(called(queue, "c"))
    await settle()
    assert not waiting.done()
    pool.release("somebody else")
    second = await waiting
    queue.leave(first)
    queue.leave(second)
    assert pool.active_count == 0


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_the_order_nobody_is_lost_and_no_more_are_called_than_there_are_slots(seed: int) -> None:
    chance = random.Random(seed)
    pool = AgentPool(max_concurrent=3)
    queue = SlotQueue(pool)
    calling = 0
    ended: list[str] = []

    async def agent(name: str, batch: str) -> None:
        nonlocal calling
        turn = Turn(name, batch)
        try:
            await queue.come_near(turn)
            await asyncio.sleep(chance.random())
            await queue.take(turn)
            calling += 1
            assert calling <= 3
            assert pool.active_count <= 3
            try:
                await asyncio.sleep(chance.random())
            finally:
                calling -= 1
                queue.end_call(turn)
            await asyncio.sleep(chance.random())
            await queue.be_counted(turn)
            assert queue.is_counted(turn)
            ended.append(name)
        finally:
            queue.leave(turn)

    tasks = [asyncio.create_task(agent(f"{batch}{n}", batch)) for batch in "xyz" for n in range(12)]
    given_up = chance.sample(tasks, 8)
    for task in given_up:
        await asyncio.sleep(chance.random())
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    lost = sum(isinstance(result, asyncio.CancelledError) for result in results)
    assert not [result for result in results if isinstance(result, AssertionError)]
    assert len(ended) == len(tasks) - lost
    assert (calling, pool.active_count, queue.waiting_count) == (0, 0, 0)


def test_more_agents_than_may_wait_are_not_admitted() -> None:
    queue = SlotQueue(AgentPool(max_concurrent=2), max_waiting=3)
    queue.admit(5)
    with pytest.raises(AgentPoolExhaustedError) as refused:
        queue.admit(6)
    assert (refused.value.requested, refused.value.capacity) == (6, 3)
