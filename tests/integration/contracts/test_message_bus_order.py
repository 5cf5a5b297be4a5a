"""What the message bus promises, held against every transport: in which order messages are received."""

from __future__ import annotations

from application.ports.message_bus import Message, MessageBus, Priority
from tests.integration.contracts.bus_talk import ended, hear, said
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_high_comes_before_normal_before_low(bus: MessageBus) -> None:
    await bus.register("b")
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
        await bus.send(said(priority.name, priority=priority))
    assert await hear(bus, "b", 5) == ["HIGH", "HIGH", "NORMAL", "LOW", "LOW"]


async def test_receive_many_keeps_the_order_of_priorities(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send_many(said(number, priority=Priority(2 - number % 3)) for number in range(9))
    heard: list[Message] = []
    while len(heard) < 9:
        heard += await bus.receive_many("b", 9, timeout=PATIENCE_S)
    assert [each.payload for each in heard] == [2, 5, 8, 1, 4, 7, 0, 3, 6]


async def test_within_a_priority_each_senders_messages_come_exactly_as_sent(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")

    async def send(bus: MessageBus, sender: str) -> None:
        for number in range(60):
            await bus.send(said(number, sender=sender, priority=Priority(number % 3)))

    await ended(send(here, "a"), send(there, "c"), send(there, "d"))
    heard = [await here.receive("b", timeout=PATIENCE_S) for _ in range(180)]
    assert [each.priority for each in heard] == [0] * 60 + [1] * 60 + [2] * 60
    for sender in "acd":
        for priority in Priority:
            numbers = [each.payload for each in heard if (each.sender, each.priority) == (sender, priority)]
            assert numbers == list(range(int(priority), 60, 3))


async def test_a_message_keeps_its_priority_in_a_broadcast(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said("normal"))
    await bus.broadcast(said("urgent", priority=Priority.HIGH))
    first = await bus.receive("b", timeout=PATIENCE_S)
    assert (first.payload, first.priority) == ("urgent", Priority.HIGH)


async def test_what_one_sender_says_to_one_to_a_group_and_to_all_comes_as_it_was_sent(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    for number in range(0, 24, 4):
        await bus.send(said(number))
        await bus.send(said(number + 1, to="group"))
        await bus.broadcast(said(number + 2))
        await bus.send_many([said(number + 3)])
    assert await hear(bus, "b", 24) == list(range(24))
    assert await hear(bus, "c", 12) == [number for number in range(24) if number % 4 in (1, 2)]
