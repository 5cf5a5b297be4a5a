"""What the message bus promises, held against every transport: who may have which name, and what becomes of messages to nobody."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from application.ports.message_bus import MessageBus
from domain.errors.bus import InvalidMessageError, NameTakenError, UnknownAgentError
from tests.integration.contracts.bus_talk import ended, hear, is_empty, letters_of, said, settle
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_a_name_is_registered_once(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    with pytest.raises(NameTakenError) as caught:
        await there.register("b")
    assert caught.value.name == "b"


async def test_registering_twice_harms_neither_the_agent_nor_its_messages(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.send(said("kept"))
    for bus in (here, there):
        with pytest.raises(NameTakenError):
            await bus.register("b")
    assert await hear(here, "b", 1) == ["kept"]


async def test_the_name_of_a_group_is_no_agents_name(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.join("a", "group")
    with pytest.raises(NameTakenError):
        await bus.register("group")


async def test_the_name_of_an_agent_is_no_groups_name(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    with pytest.raises(NameTakenError):
        await bus.join("a", "b")


async def test_of_many_that_register_one_name_at_once_one_gets_it(place: BusPlace) -> None:
    buses = [place.open() for _ in range(4)]
    outcomes = await ended(*(bus.register("prize") for bus in buses for _ in range(5)))
    assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, NameTakenError: 19}


async def test_an_unregistered_name_is_free_again(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.unregister("b")
    await there.register("b")
    await here.send(said("to the new one"))
    assert await hear(there, "b", 1) == ["to the new one"]


async def test_who_is_not_registered_cannot_receive(bus: MessageBus) -> None:
    with pytest.raises(UnknownAgentError) as caught:
        await bus.receive("ghost", timeout=0)
    assert caught.value.agent_id == "ghost"


@pytest.mark.parametrize("call", ["unregister", "join", "leave", "acknowledge", "receive_many"])
async def test_who_is_not_registered_can_do_nothing_else_either(bus: MessageBus, call: str) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "unregister": lambda: bus.unregister("ghost"),
        "join": lambda: bus.join("ghost", "group"),
        "leave": lambda: bus.leave("ghost", "group"),
        "acknowledge": lambda: bus.acknowledge("ghost", "id"),
        "receive_many": lambda: bus.receive_many("ghost", 1, timeout=0),
    }
    with pytest.raises(UnknownAgentError):
        await calls[call]()


@pytest.mark.parametrize("call", ["unregister", "join", "leave", "acknowledge", "receive", "receive_many"])
async def test_what_another_object_owns_is_not_ours_to_use(place: BusPlace, call: str) -> None:
    here, there = place.open(), place.open()
    await here.register("b", acknowledge="manual")
    await here.join("b", "joined")
    taken = await here.send(said("in hand"))
    await hear(here, "b", 1)
    await here.send(said("waiting"))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "unregister": lambda: there.unregister("b"),
        "join": lambda: there.join("b", "group"),
        "leave": lambda: there.leave("b", "joined"),
        "acknowledge": lambda: there.acknowledge("b", taken),
        "receive": lambda: there.receive("b", timeout=0),
        "receive_many": lambda: there.receive_many("b", 9, timeout=0),
    }
    if place.shared:
        with pytest.raises(NameTakenError) as caught:
            await calls[call]()
        assert caught.value.name == "b"
    assert await here.acknowledge("b", taken) == 1
    assert await hear(here, "b", 1) == ["waiting"]
    await here.send(said("to the group", to="joined"))
    assert await hear(here, "b", 1) == ["to the group"]


@pytest.mark.parametrize("name", ["", "x" * 129, "é" * 65, "\ud800"], ids=["empty", "long", "many bytes", "half"])
async def test_a_name_that_no_bus_can_carry_is_refused(bus: MessageBus, name: str) -> None:
    with pytest.raises(InvalidMessageError):
        await bus.register(name)


@pytest.mark.parametrize(
    "name", ["x" * 128, "é" * 64, "a b", "a/b", "../up", ".", "..", "a:b*?", "-", "A", "\n", "%2F"]
)
async def test_any_other_name_is_carried(bus: MessageBus, name: str) -> None:
    await bus.register(name)
    await bus.send(said(name, to=name, sender=name))
    assert await hear(bus, name, 1) == [name]


async def test_names_that_differ_in_case_alone_are_two(bus: MessageBus) -> None:
    await bus.register("agent")
    await bus.register("Agent")
    await bus.send(said("small", to="agent"))
    assert await is_empty(bus, "Agent")
    assert await hear(bus, "agent", 1) == ["small"]


@pytest.mark.parametrize("field", ["sender", "recipient", "id", "correlation_id"])
async def test_a_message_with_an_id_over_the_limit_is_refused(bus: MessageBus, field: str) -> None:
    await bus.register("b")
    message = said()
    setattr(message, field, "x" * 129)
    with pytest.raises(InvalidMessageError) as caught:
        await bus.send(message)
    assert caught.value.field == field


async def test_a_message_to_an_unknown_agent_is_a_dead_letter_and_its_sender_is_told(bus: MessageBus) -> None:
    with pytest.raises(UnknownAgentError) as caught:
        await bus.send(said("lost", to="ghost"))
    assert caught.value.agent_id == "ghost"
    [letter] = await bus.dead_letters()
    assert (letter.message.payload, letter.recipient, letter.reason, letter.attempts) == (
        "lost",
        "ghost",
        "unknown_agent",
        0,
    )
    assert letter.at == pytest.approx(time.time(), abs=PATIENCE_S)


async def test_what_an_agent_leaves_behind_becomes_dead_letters(bus: MessageBus) -> None:
    await bus.register("b")
    for number in range(3):
        await bus.send(said(number))
    await bus.unregister("b")
    letters = await letters_of(bus, 3, "b")
    assert [(letter.message.payload, letter.reason) for letter in letters] == [(n, "unregistered") for n in range(3)]


async def test_what_an_agent_did_not_acknowledge_becomes_dead_letters_too(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    await bus.send(said("taken"))
    await hear(bus, "b", 1)
    await bus.unregister("b")
    [letter] = await letters_of(bus, 1)
    assert (letter.message.payload, letter.reason, letter.attempts) == ("taken", "unregistered", 1)


async def test_who_waits_for_a_message_learns_that_its_agent_is_gone(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive("b"))
    await settle(bus, waiting)
    await bus.unregister("b")
    assert [type(each) for each in await ended(waiting)] == [UnknownAgentError]


async def test_who_waits_for_room_learns_that_the_agent_is_gone(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said())
    waiting = asyncio.create_task(bus.send(said("blocked"), timeout=PATIENCE_S))
    await settle(bus, waiting)
    await bus.unregister("b")
    assert [type(each) for each in await ended(waiting)] == [UnknownAgentError]


async def test_dead_letters_can_be_asked_for_one_agent(bus: MessageBus) -> None:
    for name in ("x", "y", "x"):
        with pytest.raises(UnknownAgentError):
            await bus.send(said(to=name))
    assert [letter.recipient for letter in await bus.dead_letters()] == ["x", "y", "x"]
    assert [letter.recipient for letter in await bus.dead_letters("y")] == ["y"]


async def test_what_a_blocked_sender_could_not_send_is_a_dead_letter_of_who_unregistered(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said("inside"))
    waiting = asyncio.create_task(bus.send(said("outside"), timeout=PATIENCE_S))
    await settle(bus, waiting)
    await bus.unregister("b")
    await ended(waiting)
    letters = await letters_of(bus, 2, "b")
    assert {(letter.message.payload, letter.reason) for letter in letters} == {
        ("inside", "unregistered"),
        ("outside", "unregistered"),
    }
