"""Several objects of the Redis transport that talk, wait for room, cancel and close, as those of several processes do."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from application.ports.message_bus import Message, Priority
from domain.errors.bus import BusClosedError, InboxFullError, NameTakenError, UnknownAgentError
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.integration.redis_buses import message, received
from tests.patience import PATIENCE_S
from tests.servers.redis import RedisServer


async def test_a_message_from_another_object_wakes_the_receiver(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a")
    waiting = asyncio.create_task(bus.receive("a", timeout=PATIENCE_S))
    await other.send(message(7))
    assert (await waiting).payload == 7


async def test_sends_that_were_begun_together_arrive_in_the_order_of_their_calls(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a")
    await asyncio.gather(*(other.send(message(number)) for number in range(1_000)))
    assert await received(bus, 1_000) == list(range(1_000))


async def test_senders_that_wait_for_room_are_let_in_by_another_object_and_keep_their_order(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a", capacity=3)
    sending = [asyncio.create_task(other.send(message(number), timeout=PATIENCE_S)) for number in range(50)]
    assert await received(bus, 50) == list(range(50))
    await asyncio.gather(*sending)


async def test_one_full_inbox_holds_up_nobody_else(bus: RedisMessageBus) -> None:
    await bus.register("full", capacity=1)
    await bus.register("a")
    await bus.send(message(0, to="full"))
    stuck = asyncio.create_task(bus.send(message(1, to="full"), timeout=PATIENCE_S))
    assert await asyncio.wait_for(bus.send(message(2)), PATIENCE_S)
    assert not stuck.done()
    assert await received(bus, 2, name="full") == [0, 1]
    await stuck


async def test_of_those_that_wait_for_room_the_more_urgent_come_in_first(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a", capacity=1)
    await bus.send(message(0))
    waiting = []
    for number, priority in ((1, Priority.LOW), (2, Priority.HIGH), (3, Priority.LOW), (4, Priority.HIGH)):
        waiting.append(asyncio.create_task(other.send(message(number, priority=priority), timeout=PATIENCE_S)))
        await asyncio.sleep(0)
    with pytest.raises(InboxFullError):
        await other.send(message(5), timeout=0)
    assert await received(bus, 5) == [0, 2, 4, 1, 3]
    await asyncio.gather(*waiting)


async def test_nobody_acts_for_an_agent_of_another_living_object(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a", acknowledge="manual")
    for act in (
        other.receive("a", timeout=PATIENCE_S),
        other.acknowledge("a", "id"),
        other.join("a", "group"),
        other.leave("a", "group"),
        other.unregister("a"),
        other.register("a"),
    ):
        with pytest.raises(NameTakenError):
            await act


async def test_hundreds_of_calls_at_once_need_no_more_than_a_few_connections(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    for number in range(300):
        await bus.register(f"a{number}")
    waits = [asyncio.create_task(bus.receive(f"a{number}")) for number in range(300)]
    await asyncio.gather(*(bus.send(message(number, to=f"a{number}")) for number in range(300)))
    assert [one.payload for one in await asyncio.gather(*waits)] == list(range(300))


async def test_a_message_to_all_need_not_say_to_whom(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a")
    await other.register("b")
    assert await bus.broadcast(Message("a", "", "news", 1)) == 1
    found = await other.receive("b", timeout=PATIENCE_S)
    assert (found.sender, found.recipient, found.payload) == ("a", "", 1)


async def test_two_namespaces_are_two_buses(bus: RedisMessageBus, redis_url: str) -> None:
    async with RedisMessageBus(redis_url, "elsewhere") as elsewhere:
        await bus.register("a")
        with pytest.raises(UnknownAgentError):
            await elsewhere.send(message())
        assert await bus.dead_letters() == []


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_what_cancelled_receivers_had_taken_is_delivered_once_and_in_its_place(
    bus: RedisMessageBus, other: RedisMessageBus, mode: str
) -> None:
    await bus.register("a", acknowledge=mode)
    choice = random.Random(6)
    found: list[Message] = []

    async def sends() -> None:
        for first in range(0, 400, 10):
            await other.send_many([message(number) for number in range(first, first + 10)])

    sending = asyncio.create_task(sends())
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < 400:
            task = asyncio.create_task(bus.receive_many("a", choice.randint(1, 15)))
            for _ in range(choice.randint(0, 12)):
                await asyncio.sleep(0)
            if choice.random() < 0.7:
                task.cancel()
            with suppress(asyncio.CancelledError):
                found += await task
    await sending
    assert [(one.payload, one.attempt) for one in found] == [(number, 1) for number in range(400)]
    if mode == "manual":
        assert await bus.acknowledge("a", *(one.id for one in found)) == 400
    stats = await bus.stats()
    assert (stats.delivered, stats.redelivered, stats.acknowledged, stats.queued) == (400, 0, 400, {"a": 0})


async def test_what_is_queued_when_an_object_closes_waits_for_the_next_one(
    bus: RedisMessageBus, redis_url: str
) -> None:
    first = RedisMessageBus(redis_url)
    await first.register("a")
    await bus.send(message(1))
    await first.close()
    await bus.send(message(2))
    await bus.register("a")
    assert await received(bus, 2) == [1, 2]


async def test_what_was_on_its_way_to_a_receiver_when_the_bus_closed_is_not_lost(
    bus: RedisMessageBus, redis_url: str
) -> None:
    first = RedisMessageBus(redis_url)
    await first.register("a")
    for number in range(20):
        await bus.send(message(number))
    waiting = asyncio.create_task(first.receive_many("a", 20))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await first.close()
    with pytest.raises(BusClosedError):
        await waiting
    await bus.register("a")
    assert await received(bus, 20) == list(range(20))
