"""A wait that is cancelled or closed leaves nothing behind, and its place goes to the next."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors.agent import AgentInvocationError
from tests.unit.infrastructure.limited_calls import enter, given_up, limiter, waits
from tests.virtual_time import pass_time, time_passed


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    one = limiter(concurrency=1, requests=5, tokens=100, memory=100)
    place = await one.enter(1, group="key", batch="batch", reply_bytes=100)
    tasks = waits(one, 3)
    await pass_time(1)
    await given_up(tasks)
    assert one.state.waiting == 0
    place.leave(1)
    assert (one.state.in_flight, one.state.requests, one.state.tokens) == (0, 1, 1)


async def test_a_wait_that_is_cancelled_in_the_moment_of_its_leave_hands_the_place_on() -> None:
    one = limiter(concurrency=1, requests=2)
    place = await enter(one)
    first, second = waits(one, 2)
    await pass_time(1)
    place.leave(1)
    first.cancel()
    await second
    assert time_passed() == 1
    assert first.cancelled()
    assert one.state.requests == 2


async def test_leave_passes_over_whoever_was_cancelled_in_the_same_moment() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    first, second = waits(one, 2)
    await pass_time(1)
    first.cancel()
    place.leave(1)
    await second
    assert time_passed() == 1
    assert first.cancelled()


async def test_a_head_that_leaves_the_line_makes_way_at_once() -> None:
    one = limiter(tokens=100)
    (await enter(one, 50)).leave(50)
    large = asyncio.create_task(enter(one, 90))
    small = asyncio.create_task(enter(one, 10))
    await pass_time(1)
    assert not small.done()
    large.cancel()
    await small
    assert time_passed() == 1


async def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    (wait,) = waits(one, 1)
    await pass_time(1)
    await one.close()
    await one.close()
    for late in (wait, asyncio.create_task(enter(one))):
        with pytest.raises(AgentInvocationError) as caught:
            await late
        assert caught.value.kind == "closed"
    place.leave(1)
    assert one.state.in_flight == 0
