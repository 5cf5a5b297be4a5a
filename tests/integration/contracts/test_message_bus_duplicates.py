"""What the message bus promises, held against every transport: that an id is accepted once."""

from __future__ import annotations

import pytest

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import InboxFullError, UnknownAgentError
from tests.integration.contracts.bus_talk import ended, hear, is_empty, said
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_an_id_is_accepted_once_per_recipient(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
    for name in ("b", "c", "b"):
        assert await bus.send(Message("a", name, "note", name, id="same")) == "same"
    assert await hear(bus, "b", 1) == ["b"]
    assert await hear(bus, "c", 1) == ["c"]
    assert await is_empty(bus, "b")
    counts = await bus.stats()
    assert (counts.sent, counts.duplicates) == (2, 1)


async def test_an_id_is_remembered_after_its_message_was_taken(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", id="same"))
    await hear(bus, "b", 1)
    await bus.send(Message("a", "b", "note", id="same"))
    assert await is_empty(bus, "b")
    assert (await bus.stats()).duplicates == 1


async def test_an_id_is_a_duplicate_whoever_sends_it_from_wherever(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.send(Message("a", "b", "note", id="same"))
    await there.send(Message("c", "b", "note", id="same"))
    await hear(here, "b", 1)
    assert await is_empty(here, "b")


async def test_an_id_that_was_refused_may_be_sent_again(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(said("first"))
    with pytest.raises(InboxFullError):
        await bus.send(Message("a", "b", "note", "second", id="retried"))
    await hear(bus, "b", 1)
    await bus.send(Message("a", "b", "note", "second", id="retried"))
    assert await hear(bus, "b", 1) == ["second"]


async def test_many_that_send_one_id_at_once_deliver_it_once(place: BusPlace) -> None:
    buses = [place.open() for _ in range(3)]
    await buses[0].register("b")
    sent = await ended(*(bus.send(Message("a", "b", "note", id="same")) for bus in buses for _ in range(5)))
    assert sent == ["same"] * 15
    await hear(buses[0], "b", 1)
    assert await is_empty(buses[0], "b")


async def test_send_many_takes_an_id_once(bus: MessageBus) -> None:
    await bus.register("b")
    ids = await bus.send_many([Message("a", "b", "note", n, id=f"m-{n % 2}") for n in range(4)])
    assert ids == ["m-0", "m-1", "m-0", "m-1"]
    assert await hear(bus, "b", 2) == [0, 1]
    assert await is_empty(bus, "b")


async def test_a_duplicate_is_no_history(bus: MessageBus) -> None:
    await bus.register("b")
    for _ in range(2):
        await bus.send(Message("a", "b", "note", id="same"))
    await bus.send_many([Message("a", "b", "note", n, id=message_id) for n, message_id in enumerate(["same", "new"])])
    assert [header.id for header in await bus.history()] == ["same", "new"]


async def test_a_duplicate_asks_for_no_room(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(Message("a", "b", "note", "once", id="same"))
    assert await bus.send(Message("a", "b", "note", "twice", id="same"), timeout=PATIENCE_S) == "same"
    assert await hear(bus, "b", 1) == ["once"]
    counts = await bus.stats()
    assert (counts.duplicates, counts.rejected) == (1, 0)


async def test_an_id_broadcast_twice_reaches_nobody_the_second_time(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
    message = Message("a", "", "note", "news", id="same")
    assert [await bus.broadcast(message), await bus.broadcast(message)] == [2, 0]
    for name in ("b", "c"):
        assert await hear(bus, name, 1) == ["news"]
        assert await is_empty(bus, name)
    assert (await bus.stats()).duplicates == 2


async def test_an_id_sent_to_one_and_then_to_its_group_is_new_to_the_others(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    await bus.send(Message("a", "b", "note", "first", id="same"))
    assert await bus.send(Message("a", "group", "note", "second", id="same")) == "same"
    assert await hear(bus, "b", 1) == ["first"]
    assert await hear(bus, "c", 1) == ["second"]
    assert await is_empty(bus, "b")


async def test_an_id_that_found_nobody_may_be_sent_again(bus: MessageBus) -> None:
    with pytest.raises(UnknownAgentError):
        await bus.send(Message("a", "b", "note", id="early"))
    await bus.register("b")
    await bus.send(Message("a", "b", "note", "now", id="early"))
    assert await hear(bus, "b", 1) == ["now"]
