"""What the message bus promises, held against every transport: what many calls at once and calls given up do not lose."""

from __future__ import annotations

import asyncio
from collections import Counter

from application.ports.message_bus import Message, MessageBus, Payload
from domain.errors.bus import ReceiveTimeoutError
from tests.integration.contracts.bus_talk import ended, hear, is_empty, said, settle, until
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_a_cancelled_receiver_loses_no_message(bus: MessageBus) -> None:
    await bus.register("b")
    for number in range(20):
        waiting = asyncio.create_task(bus.receive("b"))
        await asyncio.sleep(0)
        sending = asyncio.create_task(bus.send(said(number)))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        waiting.cancel()
        outcome, _ = await ended(waiting, sending)
        heard = outcome.payload if isinstance(outcome, Message) else (await hear(bus, "b", 1))[0]
        assert heard == number


async def test_of_two_receivers_the_other_one_gets_what_a_cancelled_one_was_woken_for(bus: MessageBus) -> None:
    await bus.register("b")
    first = asyncio.create_task(bus.receive("b"))
    await settle(bus, first)
    second = asyncio.create_task(bus.receive("b"))
    await settle(bus, second)
    sending = asyncio.create_task(bus.send(said("kept")))
    await asyncio.sleep(0)
    first.cancel()
    outcome, _ = await ended(first, sending)
    if isinstance(outcome, Message):
        second.cancel()
        await ended(second)
    else:
        assert (await asyncio.wait_for(second, PATIENCE_S)).payload == "kept"


async def test_a_cancelled_sender_that_waited_for_room_sends_nothing(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said("first"))
    waiting = asyncio.create_task(bus.send(said("given up"), timeout=PATIENCE_S))
    await settle(bus, waiting)
    waiting.cancel()
    await ended(waiting)
    await hear(bus, "b", 1)
    await bus.send(said("next"))
    assert await hear(bus, "b", 1) == ["next"]


async def test_a_cancelled_request_leaves_its_reply_to_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    asking.cancel()
    await ended(asking)
    await bus.reply(request)
    await until(bus, lambda counts: counts.late_replies == 1)
    assert await is_empty(bus, "a")


async def test_twenty_takers_of_one_inbox_take_each_message_once(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    heard: list[Payload] = []

    async def take() -> None:
        while len(heard) < 300:
            try:
                heard.extend(each.payload for each in await here.receive_many("b", 3, timeout=0.05))
            except ReceiveTimeoutError:
                continue

    takers = [asyncio.create_task(take()) for _ in range(20)]
    for number in range(300):
        await there.send(said(number))
    await ended(*takers)
    assert sorted(map(str, heard)) == sorted(map(str, range(300)))


async def test_agents_that_all_write_to_all_lose_and_double_nothing(place: BusPlace) -> None:
    buses = [place.open() for _ in range(3)]
    names = [f"agent-{number}" for number in range(6)]
    owners = {name: buses[number % 3] for number, name in enumerate(names)}
    for name, bus in owners.items():
        await bus.register(name)

    async def write(name: str) -> None:
        for number in range(10):
            for other in names:
                await owners[name].send(said(number, to=other, sender=name))

    async def read(name: str) -> Counter[tuple[str, Payload]]:
        messages = [await owners[name].receive(name, timeout=PATIENCE_S) for _ in range(60)]
        return Counter((each.sender, each.payload) for each in messages)

    outcomes = await ended(*(write(name) for name in names), *(read(name) for name in names))
    assert outcomes[6:] == [Counter((name, number) for name in names for number in range(10))] * 6


async def test_idle_receivers_do_not_keep_a_message_from_another(bus: MessageBus) -> None:
    names = [f"idle-{number}" for number in range(200)]
    for name in names:
        await bus.register(name)
    idle: list[asyncio.Task[object]] = [asyncio.create_task(bus.receive(name)) for name in names]
    await settle(bus, idle[-1])
    await bus.register("b")
    await bus.send(said("for one"))
    assert await hear(bus, "b", 1) == ["for one"]
    assert not any(task.done() for task in idle)
    for task in idle:
        task.cancel()
    await ended(*idle)


async def test_a_cancelled_receiver_of_many_loses_none_and_keeps_their_order(bus: MessageBus) -> None:
    await bus.register("b")
    numbers = iter(range(1_000))
    sent: list[Payload] = []
    heard: list[Payload] = []
    for ticks in range(12):
        waiting = asyncio.create_task(bus.receive_many("b", 10))
        await asyncio.sleep(0)
        batch = [next(numbers) for _ in range(3)]
        sending = asyncio.create_task(bus.send_many(said(number) for number in batch))
        for _ in range(ticks):
            await asyncio.sleep(0)
        waiting.cancel()
        outcome, _ = await ended(waiting, sending)
        heard += [each.payload for each in outcome] if isinstance(outcome, list) else []
        sent += batch
        while len(heard) < len(sent):
            heard += [each.payload for each in await bus.receive_many("b", 10, timeout=PATIENCE_S)]
    assert heard == sent


async def test_a_cancelled_receiver_of_an_inbox_with_messages_loses_none(bus: MessageBus) -> None:
    await bus.register("b")
    heard: list[Payload] = []
    await bus.send_many(said(number) for number in range(30))
    for ticks in range(10):
        taking = asyncio.create_task(bus.receive_many("b", 2))
        for _ in range(ticks):
            await asyncio.sleep(0)
        taking.cancel()
        [outcome] = await ended(taking)
        heard += [each.payload for each in outcome] if isinstance(outcome, list) else []
    while len(heard) < 30:
        heard += [each.payload for each in await bus.receive_many("b", 30, timeout=PATIENCE_S)]
    assert heard == list(range(30))
    assert (await bus.stats()).queued.get("b", 0) == 0
