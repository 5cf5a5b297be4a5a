"""Waiting for a slot: in turn, bounded, and nothing lost when a wait is given up."""

from __future__ import annotations

import asyncio

import pytest

from application.services.slot_queue import SlotQueue
from domain.errors.agent import AgentPoolExhaustedError
from domain.models.agent_pool import AgentPool


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_go_round_between_batches_and_in_order_within_one() -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    order: list[str] = []

    async def take(agent: str, batch: str) -> None:
        await queue.acquire(agent, batch)
        order.append(f"{batch}{agent}")
        pool.release(agent, batch)

    pool.acquire("holder")
    tasks = [asyncio.create_task(take(agent, batch)) for batch in "ab" for agent in "123"]
    await settle()
    assert queue.waiting_count == 6
    pool.release("holder")
    await asyncio.gather(*tasks)
    assert order == ["a1", "b1", "a2", "b2", "a3", "b3"]
    assert (queue.waiting_count, pool.active_count) == (0, 0)


async def test_a_wait_that_is_given_up_leaves_the_queue() -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    pool.acquire("holder")
    waiting = asyncio.create_task(queue.acquire("a", "b"))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    pool.release("holder")
    assert (queue.waiting_count, pool.active_count) == (0, 0)


async def test_a_wait_cancelled_in_the_moment_of_its_grant_holds_the_slot_until_it_is_released() -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    pool.acquire("holder")
    given_up = asyncio.create_task(queue.acquire("a", "b"))
    next_one = asyncio.create_task(queue.acquire("c", "b"))
    await settle()
    pool.release("holder")
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    assert pool.is_active("a", "b")
    pool.release("a", "b")
    await next_one
    assert pool.active_agents == frozenset({"c"})


async def test_each_grant_is_told_in_the_step_in_which_the_slot_is_taken() -> None:
    pool = AgentPool(max_concurrent=1)
    told: list[int] = []
    queue = SlotQueue(pool, granted=lambda: told.append(pool.active_count))
    assert queue.try_acquire("a", "b")
    waiting = asyncio.create_task(queue.acquire("c", "b"))
    await settle()
    pool.release("a", "b")
    assert told == [1, 1]
    await waiting


async def test_nobody_overtakes_whoever_waits() -> None:
    pool = AgentPool(max_concurrent=1)
    queue = SlotQueue(pool)
    pool.acquire("holder")
    waiting = asyncio.create_task(queue.acquire("a", "b"))
    await settle()
    assert not queue.try_acquire("c", "d")
    pool.release("holder")
    await waiting


def test_more_agents_than_may_wait_are_not_admitted() -> None:
    queue = SlotQueue(AgentPool(max_concurrent=2), max_waiting=3)
    queue.admit(5)
    with pytest.raises(AgentPoolExhaustedError) as refused:
        queue.admit(6)
    assert (refused.value.requested, refused.value.capacity) == (6, 3)
