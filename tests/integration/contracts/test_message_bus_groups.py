"""What the message bus promises, held against every transport: groups and broadcasts."""

from __future__ import annotations

import time

import pytest

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import InvalidMessageError, UnknownAgentError
from tests.integration.contracts.bus_talk import hear, is_empty, letters_of, said
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_a_group_message_goes_to_every_member_but_its_sender(bus: MessageBus) -> None:
    for name in ("a", "b", "c", "d"):
        await bus.register(name)
    for name in ("a", "b", "c"):
        await bus.join(name, "group")
    message_id = await bus.send(said("all", to="group"))
    for name in ("b", "c"):
        heard = await bus.receive(name, timeout=PATIENCE_S)
        assert (heard.payload, heard.id, heard.recipient) == ("all", message_id, "group")
    assert await is_empty(bus, "a")
    assert await is_empty(bus, "d")


async def test_who_joined_twice_hears_once(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.join("b", "group")
    await bus.join("b", "group")
    await bus.send(said("once", to="group"))
    assert await hear(bus, "b", 1) == ["once"]
    assert await is_empty(bus, "b")


async def test_who_left_a_group_hears_it_no_more(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    await bus.leave("b", "group")
    await bus.send(said(to="group"))
    await hear(bus, "c", 1)
    assert await is_empty(bus, "b")


async def test_leaving_a_group_that_one_is_not_in_changes_nothing(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.leave("b", "group")
    await bus.join("b", "group")
    await bus.send(said("heard", to="group"))
    assert await hear(bus, "b", 1) == ["heard"]


async def test_a_group_ends_with_its_last_member(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.join("b", "group")
    await bus.unregister("b")
    with pytest.raises(UnknownAgentError):
        await bus.send(said(to="group"))
    await bus.register("group")


async def test_an_unregistered_agent_is_in_no_group(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    await bus.unregister("b")
    await bus.register("b")
    await bus.send(said(to="group"))
    await hear(bus, "c", 1)
    assert await is_empty(bus, "b")


async def test_members_of_a_group_may_be_anywhere(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await there.register("c")
    await here.join("b", "group")
    await there.join("c", "group")
    await here.send(said("everywhere", to="group"))
    assert await hear(here, "b", 1) == await hear(there, "c", 1) == ["everywhere"]


async def test_a_broadcast_goes_to_everybody_but_its_sender(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    for name in ("a", "b"):
        await here.register(name)
    await there.register("c")
    assert await here.broadcast(said("news", to="whoever")) == 2
    assert await hear(here, "b", 1) == await hear(there, "c", 1) == ["news"]
    assert await is_empty(here, "a")


async def test_a_broadcast_need_not_say_to_whom(bus: MessageBus) -> None:
    for name in ("a", "b"):
        await bus.register(name)
    assert await bus.broadcast(said("news", to="")) == 1
    assert await bus.broadcast(said("more", to="b")) == 1
    heard = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(2)]
    assert [(each.payload, each.recipient) for each in heard] == [("news", ""), ("more", "b")]
    assert [header.recipient for header in await bus.history()] == ["", "b"]


async def test_a_message_to_one_has_to_say_to_whom(bus: MessageBus) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        await bus.send(said(to=""))
    assert caught.value.field == "recipient"


async def test_a_broadcast_with_nobody_there_reaches_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    assert await bus.broadcast(said()) == 0


@pytest.mark.parametrize("overflow", ["block", "reject"])
async def test_a_full_inbox_misses_a_broadcast_and_holds_up_nobody(bus: MessageBus, overflow: str) -> None:
    await bus.register("full", capacity=1, overflow=overflow)
    await bus.register("b")
    await bus.send(said("first", to="full"))
    assert await bus.broadcast(said("news")) == 1
    assert await hear(bus, "b", 1) == ["news"]
    [letter] = await bus.dead_letters("full")
    assert (letter.message.payload, letter.reason) == ("news", "inbox_full")
    assert (await bus.stats()).rejected == 1
    assert await hear(bus, "full", 1) == ["first"]


async def test_a_full_inbox_misses_a_group_message_and_holds_up_nobody(bus: MessageBus) -> None:
    await bus.register("full", capacity=1)
    await bus.register("b")
    for name in ("full", "b"):
        await bus.join(name, "group")
    await bus.send(said("first", to="full"))
    await bus.send(said("news", to="group"))
    assert await hear(bus, "b", 1) == ["news"]
    assert [letter.recipient for letter in await bus.dead_letters()] == ["full"]


async def test_send_many_to_a_group_reaches_every_member_but_the_sender_of_each(bus: MessageBus) -> None:
    for name in ("a", "b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    senders = ["a", "b", "a", "stranger", "c", "b"]
    ids = await bus.send_many(said(number, to="group", sender=sender) for number, sender in enumerate(senders))
    assert len(set(ids)) == 6
    for name in ("a", "b", "c"):
        others = [number for number, sender in enumerate(senders) if sender != name]
        messages = [await bus.receive(name, timeout=PATIENCE_S) for _ in others]
        assert [(each.payload, each.sender, each.id) for each in messages] == [
            (number, senders[number], ids[number]) for number in others
        ]
        assert await is_empty(bus, name)


async def test_a_group_of_its_sender_alone_hears_nothing_and_that_is_no_failure(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.join("a", "group")
    assert await bus.send(said(to="group"))
    assert await is_empty(bus, "a")
    assert await bus.dead_letters() == []


async def test_who_is_no_agent_may_broadcast(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
    assert await bus.broadcast(said("news", sender="stranger")) == 2
    assert await hear(bus, "b", 1) == await hear(bus, "c", 1) == ["news"]


async def test_an_agent_is_in_several_groups(bus: MessageBus) -> None:
    await bus.register("b")
    for group in ("readers", "writers"):
        await bus.join("b", group)
    await bus.send(said(1, to="readers"))
    await bus.send(said(2, to="writers"))
    await bus.leave("b", "readers")
    with pytest.raises(UnknownAgentError):
        await bus.send(said(3, to="readers"))
    await bus.send(said(4, to="writers"))
    assert await hear(bus, "b", 3) == [1, 2, 4]


async def test_a_broadcast_drops_the_oldest_where_that_was_chosen(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="drop_oldest")
    await bus.send(said("old"))
    assert await bus.broadcast(said("new")) == 1
    assert await hear(bus, "b", 1) == ["new"]
    assert [letter.message.payload for letter in await bus.dead_letters("b")] == ["old"]


async def test_a_broadcast_that_expired_reaches_nobody(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.broadcast(Message("a", "", "note", "stale", expires_at=time.time() - 1))
    assert await is_empty(bus, "b")
    assert [letter.reason for letter in await letters_of(bus, 1, "b")] == ["expired"]
