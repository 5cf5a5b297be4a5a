"""Streams, groups and records of the Redis transport that others took away or wrote to, and a clock that is set back."""

from __future__ import annotations

import asyncio

import pytest

from domain.errors.bus import BusUnavailableError
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.integration.redis_buses import PLACE, message, received
from tests.patience import PATIENCE_S
from tests.servers.redis import RedisServer


async def test_a_group_that_was_destroyed_is_made_again_and_what_was_unacknowledged_comes_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    for number in range(4):
        await bus.send(message(number))
    assert [one.payload for one in await bus.receive_many("a", 2)] == [0, 1]
    assert redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g") == ":1"
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in taken] == [0, 1, 2, 3]
    assert await bus.acknowledge("a", *(one.id for one in taken)) == 4
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_a_run_that_was_unacknowledged_when_the_group_was_destroyed_comes_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many([message(number) for number in range(4)])
    assert len(await bus.receive_many("a", 10)) == 4
    redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g")
    await bus.send_many([message(number) for number in range(4, 6)])
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in taken] == list(range(6))
    assert await bus.acknowledge("a", *(one.id for one in taken)) == 6
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_an_opened_run_does_not_miss_the_group_that_was_destroyed(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many([message(number) for number in range(4)])
    first = await bus.receive_many("a", 2)
    redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g")
    await bus.send(message(4))
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in [*first, *taken]] == list(range(5))
    assert await bus.acknowledge("a", *(one.id for one in [*first, *taken])) == 5
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_a_stream_that_was_deleted_is_counted_and_the_inbox_goes_on(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send_many([message(number) for number in range(5)])
    assert redis_server.command("DEL", f"{PLACE}s:a:1") == ":1"
    await bus.send(message(6))
    assert await received(bus, 1) == [6]
    stats = await bus.stats()
    assert (stats.dropped, stats.queued) == (5, {"a": 0})


async def test_an_inbox_that_was_full_when_its_stream_was_deleted_has_room_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", capacity=2)
    await bus.send_many([message(number) for number in range(2)])
    redis_server.command("DEL", f"{PLACE}s:a:1")
    waiting = asyncio.create_task(bus.receive("a"))
    await bus.send(message(3), timeout=PATIENCE_S)
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 3


async def test_an_inbox_whose_record_was_deleted_is_put_back_with_what_its_stream_holds(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send_many([message(number) for number in range(3)])
    redis_server.command("DEL", f"{PLACE}a:a")
    assert await received(bus, 3) == [0, 1, 2]
    await bus.send(message(3))
    assert await received(bus, 1) == [3]


async def test_foreign_entries_in_a_stream_are_counted_and_hold_nobody_up(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send(message(1))
    redis_server.command("XADD", f"{PLACE}s:a:1", "*", "d", "poison")
    redis_server.command("XADD", f"{PLACE}s:a:1", "*", "who", "knows")
    await bus.send(message(2))
    assert await received(bus, 2) == [1, 2]
    stats = await bus.stats()
    assert (stats.corrupt, stats.queued) == (2, {"a": 0})


async def test_a_foreign_key_where_a_stream_should_be_stops_that_inbox_and_no_other(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.register("b")
    redis_server.command("SET", f"{PLACE}s:a:1", "mine")
    with pytest.raises(BusUnavailableError, match="Delete that key"):
        await bus.send(message(1))
    await bus.send(message(2, to="b"))
    assert await received(bus, 1, name="b") == [2]
    redis_server.command("DEL", f"{PLACE}s:a:1")
    await bus.send(message(3))
    assert await received(bus, 1) == [3]


async def test_a_clock_that_is_set_back_delays_a_redelivery_by_no_more_than_its_time(redis_url: str) -> None:
    now = 2_000_000.0
    async with RedisMessageBus(redis_url, visibility_s=30.0, wall_clock=lambda: now) as bus:
        await bus.register("a", acknowledge="manual")
        await bus.send(message(1))
        await bus.receive("a")
        now = 1_000_000.0
        await bus.send(message(2))
        assert (await bus.receive("a")).payload == 2
        now += 31.0
        again = await bus.receive_many("a", 2, timeout=PATIENCE_S)
        assert [(one.payload, one.attempt) for one in again] == [(1, 2), (2, 2)]
