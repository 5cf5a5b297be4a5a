"""Runs and messages that somebody wrote by hand into a stream of the Redis bus: counted, and in nobody's way."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from application.ports.message_bus import Priority
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.integration.redis_buses import PLACE
from tests.integration.redis_runs import VISIBLE_S, Clock, patient_bus, payloads, run_of, taken
from tests.servers.redis import RedisServer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(redis_url: str, clock: Clock) -> AsyncIterator[RedisMessageBus]:
    async with patient_bus(redis_url, clock) as one:
        yield one


# Well-formed heads of two messages and of one, named as nobody's; the first body of the run is said to be longer than both.
NAMES = "asixt"
TWO = (
    "\x00\x01\x00\x02" + "\x00" * 24 + "\x01\x01\x01\x01\x01\x00\x00\x00\x04" + NAMES + "\x00\x00\x00\x7f" * 2 + "1,2,"
)
ONE = "\x00\x01\x00\x01" + "\x00" * 24 + "\x01\x01\x01\x01\x01\x00\x00\x00\x02" + NAMES + "7,"


@pytest.mark.parametrize("begun", [False, True], ids=["before the first is taken", "later"])
@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_a_run_with_bodies_of_other_lengths_than_it_says_is_counted_and_holds_nobody_up(
    bus: RedisMessageBus, redis_server: RedisServer, mode: str, *, begun: bool
) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send_many(run_of(3))
    found = await taken(bus, 3) if begun else []
    assert redis_server.command("XADD", f"{PLACE}s:a:1", "4-2", "d", TWO) == "$3"
    await bus.send_many(run_of(2, first=3))
    while some := await taken(bus, 1):
        found += some
    assert payloads(found) == list(range(5))
    stats = await bus.stats()
    assert (stats.queued, stats.corrupt) == ({"a": 5 if mode == "manual" else 0}, 2)


async def test_a_run_that_cannot_be_read_is_counted_when_it_would_come_again_and_takes_up_no_room(
    bus: RedisMessageBus, redis_server: RedisServer, clock: Clock
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(3))
    assert redis_server.command("XADD", f"{PLACE}s:a:1", "4-2", "d", TWO) == "$3"
    await bus.send(run_of(1, first=3)[0])
    found = await bus.receive_many("a", 10)
    assert payloads(found) == [0, 1, 2, 3]
    assert await bus.acknowledge("a", *(one.id for one in found)) == 4
    assert (await bus.stats()).queued == {"a": 2}
    clock.now += VISIBLE_S
    assert await taken(bus, 10) == []
    assert (await bus.stats()).queued == {"a": 0}


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_a_message_that_somebody_wrote_by_hand_takes_the_place_of_no_other(
    bus: RedisMessageBus, redis_server: RedisServer, mode: str
) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send_many(run_of(3))
    assert payloads(await taken(bus, 3)) == [0, 1, 2]
    redis_server.command("XADD", f"{PLACE}s:a:1", "9-0", "d", ONE)
    assert await taken(bus, 3) == []
    await bus.send_many(run_of(2, first=3))
    found = [*await taken(bus, 3), *await taken(bus, 3)]
    assert [one.payload for one in found if one.payload != 7] == [3, 4]
    redis_server.command("XADD", f"{PLACE}s:a:1", "99-0", "d", ONE)
    await bus.send(run_of(1, first=5)[0])
    found = [*await taken(bus, 3), *await taken(bus, 3)]
    assert [one.payload for one in found if one.payload != 7] == [5]


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_a_message_with_a_number_that_the_inbox_has_not_given_is_counted_and_not_delivered(
    bus: RedisMessageBus, redis_server: RedisServer, mode: str
) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send(run_of(1)[0])
    redis_server.command("XADD", f"{PLACE}s:a:1", "9-0", "d", ONE)
    await bus.send(run_of(1, to="a", priority=Priority.HIGH)[0])
    assert payloads(await taken(bus, 5)) == [0, 0]
    stats = await bus.stats()
    assert (stats.corrupt, stats.queued) == (1, {"a": 2 if mode == "manual" else 0})
