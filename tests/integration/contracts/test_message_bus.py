"""What the message bus promises, held against every transport."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from application.ports.message_bus import (
    BusStats,
    DeadLetter,
    Message,
    MessageBus,
    Payload,
    Priority,
)
from domain.errors.bus import (
    BusClosedError,
    BusError,
    InboxFullError,
    InvalidMessageError,
    NameTakenError,
    PayloadTooLargeError,
    ReceiveTimeoutError,
    RequestTimeoutError,
    UnknownAgentError,
)
from tests.integration.contracts.buses import PATIENCE_S, TRANSPORTS, BusPlace

PAYLOADS: list[Payload] = [
    None,
    True,
    0,
    -(10**30),
    1.5,
    "",
    "café \U0001f600 \x00",
    b"",
    b"\x00\xff bytes",
    [],
    [1, "two", [None, {"three": b"\x03"}]],
    {},
    {"nested": {"list": [1, 2.5, None, False], "": "empty key"}},
    {"$bytes": "not bytes"},
    {"$object": {"$bytes": b"\x01"}},
]


@pytest.fixture(params=sorted(TRANSPORTS))
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BusPlace]:
    """Each transport in turn, with nothing on it."""
    async with TRANSPORTS[request.param](request, tmp_path) as empty:
        yield empty


@pytest.fixture
def bus(place: BusPlace) -> MessageBus:
    """One object on the place, with the limits that it has by itself."""
    return place.open()


def _said(
    payload: Payload = None, *, to: str = "b", sender: str = "a", priority: Priority = Priority.NORMAL
) -> Message:
    return Message(sender, to, "note", payload, priority=priority)


async def _heard(bus: MessageBus, agent_id: str, how_many: int) -> list[Payload]:
    return [(await bus.receive(agent_id, timeout=PATIENCE_S)).payload for _ in range(how_many)]


async def _is_empty(bus: MessageBus, agent_id: str) -> bool:
    try:
        await bus.receive(agent_id, timeout=0)
    except ReceiveTimeoutError:
        return True
    return False


async def _until(bus: MessageBus, holds: Callable[[BusStats], bool]) -> BusStats:
    """Ask for the counts until they are as wanted; fails with the last ones when patience ends."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds(counts := await bus.stats()):
        assert time.monotonic() < deadline, counts
        await asyncio.sleep(0.002)
    return counts


async def _letters(bus: MessageBus, how_many: int, agent_id: str | None = None) -> list[DeadLetter]:
    deadline = time.monotonic() + PATIENCE_S
    while len(letters := await bus.dead_letters(agent_id)) < how_many:
        assert time.monotonic() < deadline, letters
        await asyncio.sleep(0.002)
    return letters


async def _settled(task: asyncio.Task[object]) -> None:
    """Let a task run until it waits for something that only others can bring."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert not task.done()


async def _ended(*tasks: asyncio.Task[object] | Awaitable[object]) -> list[object]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)


# Sending and receiving.


async def test_a_message_arrives_with_every_field_it_was_sent_with(bus: MessageBus) -> None:
    await bus.register("b")
    expires_at = time.time() + 3_600
    sent = Message("a", "b", "note", {"n": 1}, Priority.HIGH, "c-1", expires_at, "id-1")
    assert await bus.send(sent) == "id-1"
    assert await bus.receive("b", timeout=PATIENCE_S) == sent


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
async def test_a_payload_arrives_as_it_was_sent(bus: MessageBus, payload: Payload) -> None:
    await bus.register("b")
    await bus.send(_said(payload))
    [heard] = await _heard(bus, "b", 1)
    assert heard == payload
    assert type(heard) is type(payload)


async def test_an_empty_id_is_filled_in(bus: MessageBus) -> None:
    await bus.register("b")
    message_id = await bus.send(_said())
    assert message_id
    assert (await bus.receive("b", timeout=PATIENCE_S)).id == message_id


async def test_one_object_sent_twice_is_two_messages(bus: MessageBus) -> None:
    await bus.register("b")
    message = _said("again")
    ids = {await bus.send(message), await bus.send(message)}
    assert len(ids) == 2
    assert await _heard(bus, "b", 2) == ["again", "again"]


async def test_a_sender_need_not_be_registered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(_said("hello", sender="nobody"))
    assert await _heard(bus, "b", 1) == ["hello"]


async def test_an_agent_may_write_to_itself(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.send(_said("to myself", to="a"))
    assert await _heard(bus, "a", 1) == ["to myself"]


async def test_a_receiver_that_waits_gets_what_is_sent_later(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive("b"))
    await _settled(waiting)
    await bus.send(_said("at last"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "at last"


async def test_an_object_hears_what_another_object_sends(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    waiting = asyncio.create_task(here.receive("b"))
    await _settled(waiting)
    await there.send(_said("across"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "across"


async def test_what_was_sent_is_heard_once(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(_said())
    await _heard(bus, "b", 1)
    assert await _is_empty(bus, "b")


async def test_a_receiver_waits_no_longer_than_it_said(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(ReceiveTimeoutError) as caught:
        await bus.receive("b", timeout=0.01)
    assert isinstance(caught.value, TimeoutError)


async def test_without_patience_a_receiver_takes_what_is_there(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(_said("there"))
    assert (await bus.receive("b", timeout=0)).payload == "there"


async def test_receive_many_takes_what_is_there_and_no_more_than_asked_for(bus: MessageBus) -> None:
    await bus.register("b")
    for number in range(5):
        await bus.send(_said(number))
    assert [each.payload for each in await bus.receive_many("b", 3, timeout=PATIENCE_S)] == [0, 1, 2]
    assert [each.payload for each in await bus.receive_many("b", 100, timeout=PATIENCE_S)] == [3, 4]


async def test_receive_many_waits_for_the_first(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive_many("b", 10))
    await _settled(waiting)
    await bus.send(_said("first"))
    assert [each.payload for each in await asyncio.wait_for(waiting, PATIENCE_S)] == ["first"]


async def test_receive_many_gives_up_as_receive_does(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(ReceiveTimeoutError):
        await bus.receive_many("b", 10, timeout=0.01)


async def test_receive_many_of_nothing_is_refused(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(ValueError, match="max_messages"):
        await bus.receive_many("b", 0)


async def test_send_many_gives_the_ids_in_order(bus: MessageBus) -> None:
    await bus.register("b")
    ids = await bus.send_many(_said(number) for number in range(250))
    heard: list[Message] = []
    while len(heard) < 250:
        heard += await bus.receive_many("b", 100, timeout=PATIENCE_S)
    assert [each.payload for each in heard] == list(range(250))
    assert [each.id for each in heard] == ids


async def test_send_many_tries_the_others_before_it_raises_the_first_failure(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.send_many([_said(1), _said(to="ghost"), _said(2), _said(to="phantom"), _said(3)])
    assert caught.value.agent_id == "ghost"
    assert await _heard(bus, "b", 3) == [1, 2, 3]


async def test_send_many_of_nothing_sends_nothing(bus: MessageBus) -> None:
    await bus.register("b")
    assert await bus.send_many([]) == []
    assert (await bus.stats()).sent == 0


# Order.


async def test_high_comes_before_normal_before_low(bus: MessageBus) -> None:
    await bus.register("b")
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.LOW, Priority.HIGH):
        await bus.send(_said(priority.name, priority=priority))
    assert await _heard(bus, "b", 5) == ["HIGH", "HIGH", "NORMAL", "LOW", "LOW"]


async def test_receive_many_keeps_the_order_of_priorities(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send_many(_said(number, priority=Priority(2 - number % 3)) for number in range(9))
    heard: list[Message] = []
    while len(heard) < 9:
        heard += await bus.receive_many("b", 9, timeout=PATIENCE_S)
    assert [each.payload for each in heard] == [2, 5, 8, 1, 4, 7, 0, 3, 6]


async def test_within_a_priority_each_senders_messages_come_exactly_as_sent(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")

    async def send(bus: MessageBus, sender: str) -> None:
        for number in range(60):
            await bus.send(_said(number, sender=sender, priority=Priority(number % 3)))

    await _ended(send(here, "a"), send(there, "c"), send(there, "d"))
    heard = [await here.receive("b", timeout=PATIENCE_S) for _ in range(180)]
    assert [each.priority for each in heard] == [0] * 60 + [1] * 60 + [2] * 60
    for sender in "acd":
        for priority in Priority:
            numbers = [each.payload for each in heard if (each.sender, each.priority) == (sender, priority)]
            assert numbers == list(range(int(priority), 60, 3))


async def test_a_message_keeps_its_priority_in_a_broadcast(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(_said("normal"))
    await bus.broadcast(_said("urgent", priority=Priority.HIGH))
    first = await bus.receive("b", timeout=PATIENCE_S)
    assert (first.payload, first.priority) == ("urgent", Priority.HIGH)


# Names.


async def test_a_name_is_registered_once(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    with pytest.raises(NameTakenError) as caught:
        await there.register("b")
    assert caught.value.name == "b"


async def test_registering_twice_harms_neither_the_agent_nor_its_messages(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.send(_said("kept"))
    for bus in (here, there):
        with pytest.raises(NameTakenError):
            await bus.register("b")
    assert await _heard(here, "b", 1) == ["kept"]


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
    outcomes = await _ended(*(bus.register("prize") for bus in buses for _ in range(5)))
    assert Counter(type(outcome) for outcome in outcomes) == {type(None): 1, NameTakenError: 19}


async def test_an_unregistered_name_is_free_again(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.unregister("b")
    await there.register("b")
    await here.send(_said("to the new one"))
    assert await _heard(there, "b", 1) == ["to the new one"]


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


@pytest.mark.parametrize("name", ["", "x" * 129, "é" * 65, "\ud800"], ids=["empty", "long", "many bytes", "half"])
async def test_a_name_that_no_bus_can_carry_is_refused(bus: MessageBus, name: str) -> None:
    with pytest.raises(InvalidMessageError):
        await bus.register(name)


@pytest.mark.parametrize(
    "name", ["x" * 128, "é" * 64, "a b", "a/b", "../up", ".", "..", "a:b*?", "-", "A", "\n", "%2F"]
)
async def test_any_other_name_is_carried(bus: MessageBus, name: str) -> None:
    await bus.register(name)
    await bus.send(_said(name, to=name, sender=name))
    assert await _heard(bus, name, 1) == [name]


async def test_names_that_differ_in_case_alone_are_two(bus: MessageBus) -> None:
    await bus.register("agent")
    await bus.register("Agent")
    await bus.send(_said("small", to="agent"))
    assert await _is_empty(bus, "Agent")
    assert await _heard(bus, "agent", 1) == ["small"]


@pytest.mark.parametrize("field", ["sender", "recipient", "id", "correlation_id"])
async def test_a_message_with_an_id_over_the_limit_is_refused(bus: MessageBus, field: str) -> None:
    await bus.register("b")
    message = _said()
    setattr(message, field, "x" * 129)
    with pytest.raises(InvalidMessageError) as caught:
        await bus.send(message)
    assert caught.value.field == field


# Who is not there.


async def test_a_message_to_an_unknown_agent_is_a_dead_letter_and_its_sender_is_told(bus: MessageBus) -> None:
    with pytest.raises(UnknownAgentError) as caught:
        await bus.send(_said("lost", to="ghost"))
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
        await bus.send(_said(number))
    await bus.unregister("b")
    letters = await _letters(bus, 3, "b")
    assert [(letter.message.payload, letter.reason) for letter in letters] == [(n, "unregistered") for n in range(3)]


async def test_what_an_agent_did_not_acknowledge_becomes_dead_letters_too(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    await bus.send(_said("taken"))
    await _heard(bus, "b", 1)
    await bus.unregister("b")
    [letter] = await _letters(bus, 1)
    assert (letter.message.payload, letter.reason, letter.attempts) == ("taken", "unregistered", 1)


async def test_who_waits_for_a_message_learns_that_its_agent_is_gone(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive("b"))
    await _settled(waiting)
    await bus.unregister("b")
    assert [type(each) for each in await _ended(waiting)] == [UnknownAgentError]


async def test_who_waits_for_room_learns_that_the_agent_is_gone(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(_said())
    waiting = asyncio.create_task(bus.send(_said("blocked"), timeout=PATIENCE_S))
    await _settled(waiting)
    await bus.unregister("b")
    assert [type(each) for each in await _ended(waiting)] == [UnknownAgentError]


async def test_dead_letters_can_be_asked_for_one_agent(bus: MessageBus) -> None:
    for name in ("x", "y", "x"):
        with pytest.raises(UnknownAgentError):
            await bus.send(_said(to=name))
    assert [letter.recipient for letter in await bus.dead_letters()] == ["x", "y", "x"]
    assert [letter.recipient for letter in await bus.dead_letters("y")] == ["y"]


# Groups and broadcasts.


async def test_a_group_message_goes_to_every_member_but_its_sender(bus: MessageBus) -> None:
    for name in ("a", "b", "c", "d"):
        await bus.register(name)
    for name in ("a", "b", "c"):
        await bus.join(name, "group")
    message_id = await bus.send(_said("all", to="group"))
    for name in ("b", "c"):
        heard = await bus.receive(name, timeout=PATIENCE_S)
        assert (heard.payload, heard.id, heard.recipient) == ("all", message_id, "group")
    assert await _is_empty(bus, "a")
    assert await _is_empty(bus, "d")


async def test_who_joined_twice_hears_once(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.join("b", "group")
    await bus.join("b", "group")
    await bus.send(_said("once", to="group"))
    assert await _heard(bus, "b", 1) == ["once"]
    assert await _is_empty(bus, "b")


async def test_who_left_a_group_hears_it_no_more(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    await bus.leave("b", "group")
    await bus.send(_said(to="group"))
    await _heard(bus, "c", 1)
    assert await _is_empty(bus, "b")


async def test_leaving_a_group_that_one_is_not_in_changes_nothing(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.leave("b", "group")
    await bus.join("b", "group")
    await bus.send(_said("heard", to="group"))
    assert await _heard(bus, "b", 1) == ["heard"]


async def test_a_group_ends_with_its_last_member(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.join("b", "group")
    await bus.unregister("b")
    with pytest.raises(UnknownAgentError):
        await bus.send(_said(to="group"))
    await bus.register("group")


async def test_an_unregistered_agent_is_in_no_group(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    await bus.unregister("b")
    await bus.register("b")
    await bus.send(_said(to="group"))
    await _heard(bus, "c", 1)
    assert await _is_empty(bus, "b")


async def test_members_of_a_group_may_be_anywhere(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await there.register("c")
    await here.join("b", "group")
    await there.join("c", "group")
    await here.send(_said("everywhere", to="group"))
    assert await _heard(here, "b", 1) == await _heard(there, "c", 1) == ["everywhere"]


async def test_a_broadcast_goes_to_everybody_but_its_sender(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    for name in ("a", "b"):
        await here.register(name)
    await there.register("c")
    assert await here.broadcast(_said("news", to="whoever")) == 2
    assert await _heard(here, "b", 1) == await _heard(there, "c", 1) == ["news"]
    assert await _is_empty(here, "a")


async def test_a_broadcast_with_nobody_there_reaches_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    assert await bus.broadcast(_said()) == 0


@pytest.mark.parametrize("overflow", ["block", "reject"])
async def test_a_full_inbox_misses_a_broadcast_and_holds_up_nobody(bus: MessageBus, overflow: str) -> None:
    await bus.register("full", capacity=1, overflow=overflow)
    await bus.register("b")
    await bus.send(_said("first", to="full"))
    assert await bus.broadcast(_said("news")) == 1
    assert await _heard(bus, "b", 1) == ["news"]
    [letter] = await bus.dead_letters("full")
    assert (letter.message.payload, letter.reason) == ("news", "inbox_full")
    assert (await bus.stats()).rejected == 1
    assert await _heard(bus, "full", 1) == ["first"]


async def test_a_full_inbox_misses_a_group_message_and_holds_up_nobody(bus: MessageBus) -> None:
    await bus.register("full", capacity=1)
    await bus.register("b")
    for name in ("full", "b"):
        await bus.join(name, "group")
    await bus.send(_said("first", to="full"))
    await bus.send(_said("news", to="group"))
    assert await _heard(bus, "b", 1) == ["news"]
    assert [letter.recipient for letter in await bus.dead_letters()] == ["full"]


# Bounds.


async def test_a_full_inbox_that_rejects_says_so_at_once(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="reject")
    for number in range(2):
        await bus.send(_said(number))
    with pytest.raises(InboxFullError) as caught:
        await bus.send(_said(2))
    assert (caught.value.agent_id, caught.value.capacity) == ("b", 2)
    assert (await bus.stats()).rejected == 1
    assert await _heard(bus, "b", 2) == [0, 1]
    assert await _is_empty(bus, "b")


async def test_a_sender_waits_for_room_and_gets_it(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(_said("first"))
    waiting = asyncio.create_task(bus.send(_said("second"), timeout=PATIENCE_S))
    await _settled(waiting)
    assert await _heard(bus, "b", 1) == ["first"]
    assert await asyncio.wait_for(waiting, PATIENCE_S)
    assert await _heard(bus, "b", 1) == ["second"]


async def test_a_sender_elsewhere_waits_for_room_and_gets_it(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b", capacity=1)
    await there.send(_said("first"))
    waiting = asyncio.create_task(there.send(_said("second"), timeout=PATIENCE_S))
    await _settled(waiting)
    assert await _heard(here, "b", 2) == ["first", "second"]
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_sender_waits_for_room_no_longer_than_it_said(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(_said("first"))
    with pytest.raises(InboxFullError):
        await bus.send(_said("second"), timeout=0.01)
    assert await _heard(bus, "b", 1) == ["first"]
    assert await _is_empty(bus, "b")


async def test_senders_that_wait_for_room_come_in_order(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(_said(0))
    waiting = []
    for number in range(1, 5):
        waiting.append(asyncio.create_task(bus.send(_said(number), timeout=PATIENCE_S)))
        await _settled(waiting[-1])
    assert await _heard(bus, "b", 5) == [0, 1, 2, 3, 4]
    await _ended(*waiting)


async def test_a_flood_through_a_small_inbox_loses_nothing(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b", capacity=7)

    async def flood(bus: MessageBus, sender: str) -> None:
        for number in range(100):
            await bus.send(_said(number, sender=sender), timeout=PATIENCE_S)

    floods = [asyncio.create_task(flood(here, "a")), asyncio.create_task(flood(there, "c"))]
    heard = [await here.receive("b", timeout=PATIENCE_S) for _ in range(200)]
    await _ended(*floods)
    for sender in "ac":
        assert [each.payload for each in heard if each.sender == sender] == list(range(100))


async def test_drop_oldest_drops_the_oldest_of_the_lowest_priority(bus: MessageBus) -> None:
    await bus.register("b", capacity=3, overflow="drop_oldest")
    await bus.send(_said("low 1", priority=Priority.LOW))
    await bus.send(_said("low 2", priority=Priority.LOW))
    await bus.send(_said("high", priority=Priority.HIGH))
    await bus.send(_said("normal"))
    assert [letter.message.payload for letter in await bus.dead_letters()] == ["low 1"]
    assert (await bus.stats()).dropped == 1
    assert await _heard(bus, "b", 3) == ["high", "normal", "low 2"]


async def test_drop_oldest_drops_the_new_one_when_that_is_the_lowest(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="drop_oldest")
    await bus.send(_said("high", priority=Priority.HIGH))
    await bus.send(_said("normal"))
    assert await bus.send(_said("low", priority=Priority.LOW))
    [letter] = await bus.dead_letters()
    assert (letter.message.payload, letter.reason) == ("low", "inbox_full")
    assert await _heard(bus, "b", 2) == ["high", "normal"]


async def test_drop_oldest_never_drops_what_is_in_its_agents_hands(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="drop_oldest", acknowledge="manual")
    await bus.send(_said("in hand"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    await bus.send(_said("new"))
    assert [letter.message.payload for letter in await bus.dead_letters()] == ["new"]
    assert await bus.acknowledge("b", taken.id) == 1


async def test_a_group_message_drops_the_oldest_where_that_was_chosen(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="drop_oldest")
    await bus.join("b", "group")
    await bus.send(_said("old"))
    await bus.send(_said("new", to="group"))
    assert await _heard(bus, "b", 1) == ["new"]


async def test_what_is_not_acknowledged_takes_room(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject", acknowledge="manual")
    await bus.send(_said("first"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(InboxFullError):
        await bus.send(_said("second"))
    await bus.acknowledge("b", taken.id)
    await bus.send(_said("third"))
    assert await _heard(bus, "b", 1) == ["third"]


async def test_an_acknowledgement_lets_a_sender_in(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, acknowledge="manual")
    await bus.send(_said("first"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    waiting = asyncio.create_task(bus.send(_said("second"), timeout=PATIENCE_S))
    await _settled(waiting)
    await bus.acknowledge("b", taken.id)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert await _heard(bus, "b", 1) == ["second"]


async def test_the_bus_says_how_large_an_inbox_is_unless_the_agent_does(place: BusPlace) -> None:
    bus = place.open(capacity=1, overflow="reject")
    await bus.register("small")
    await bus.register("large", capacity=2)
    for name in ("small", "large"):
        await bus.send(_said(to=name))
    await bus.send(_said(to="large"))
    with pytest.raises(InboxFullError):
        await bus.send(_said(to="small"))


@pytest.mark.parametrize("payload", ["x" * 2_000, b"x" * 2_000], ids=["text", "bytes"])
async def test_a_payload_over_the_limit_is_refused(place: BusPlace, payload: Payload) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("b")
    with pytest.raises(PayloadTooLargeError) as caught:
        await bus.send(_said(payload))
    assert caught.value.size >= 2_000
    assert caught.value.limit == 1_000
    assert await _is_empty(bus, "b")


async def test_a_payload_of_the_size_allowed_is_carried(bus: MessageBus) -> None:
    await bus.register("b")
    payload = "x" * 1_000_000
    await bus.send(_said(payload))
    assert await _heard(bus, "b", 1) == [payload]


async def test_a_payload_that_is_no_data_is_refused(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(InvalidMessageError):
        await bus.send(_said(object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limits",
    [
        {"capacity": 0},
        {"overflow": "explode"},
        {"visibility_s": 0},
        {"max_attempts": 0},
        {"max_payload_bytes": -1},
        {"visibility_s": float("nan")},
    ],
    ids=repr,
)
async def test_limits_that_mean_nothing_are_refused(place: BusPlace, limits: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        place.open(**limits)


@pytest.mark.parametrize("settings", [{"overflow": "explode"}, {"acknowledge": "maybe"}, {"capacity": 0}], ids=repr)
async def test_settings_of_an_inbox_that_mean_nothing_are_refused(bus: MessageBus, settings: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        await bus.register("b", **settings)  # type: ignore[arg-type]


# Acknowledgements.


async def test_what_is_acknowledged_does_not_come_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05)
    await bus.register("b", acknowledge="manual")
    await bus.send(_said())
    taken = await bus.receive("b", timeout=PATIENCE_S)
    assert await bus.acknowledge("b", taken.id) == 1
    with pytest.raises(ReceiveTimeoutError):
        await bus.receive("b", timeout=0.3)
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_several_are_acknowledged_at_once_and_unknown_ones_are_not_counted(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    ids = await bus.send_many(_said(number) for number in range(3))
    await _heard(bus, "b", 3)
    assert await bus.acknowledge("b", *ids, "unknown", ids[0]) == 3
    assert await bus.acknowledge("b", *ids) == 0
    assert (await bus.stats()).acknowledged == 3


async def test_what_was_not_yet_taken_cannot_be_acknowledged(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    message_id = await bus.send(_said("still there"))
    assert await bus.acknowledge("b", message_id) == 0
    assert await _heard(bus, "b", 1) == ["still there"]


async def test_what_is_not_acknowledged_in_time_comes_again_with_the_next_attempt(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05)
    await bus.register("b", acknowledge="manual")
    message_id = await bus.send(_said("again", priority=Priority.HIGH))
    heard = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(3)]
    assert [(each.id, each.payload, each.priority, each.attempt) for each in heard] == [
        (message_id, "again", Priority.HIGH, attempt) for attempt in (1, 2, 3)
    ]
    counts = await bus.stats()
    assert (counts.sent, counts.delivered, counts.redelivered) == (1, 1, 2)


async def test_a_redelivered_message_can_be_acknowledged(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.5, max_attempts=100)
    await bus.register("b", acknowledge="manual")
    await bus.send(_said())
    await _heard(bus, "b", 1)
    again = await bus.receive("b", timeout=PATIENCE_S)
    while await bus.acknowledge("b", again.id) != 1:
        again = await bus.receive("b", timeout=PATIENCE_S)
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_messages_that_come_again_come_in_the_order_in_which_they_were_sent(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    await bus.send_many(_said(number) for number in range(3))
    heard: list[Message] = []
    while sum(each.attempt == 2 for each in heard) < 3:
        heard.append(await bus.receive("b", timeout=PATIENCE_S))
    assert [each.payload for each in heard if each.attempt == 2] == [0, 1, 2]


async def test_after_the_last_attempt_a_message_is_dead(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02, max_attempts=3)
    await bus.register("b", acknowledge="manual")
    await bus.send(_said("poison"))
    attempts = [(await bus.receive("b", timeout=PATIENCE_S)).attempt for _ in range(3)]
    assert attempts == [1, 2, 3]
    [letter] = await _letters(bus, 1, "b")
    assert (letter.message.payload, letter.reason, letter.attempts) == ("poison", "attempts", 3)
    assert await _is_empty(bus, "b")
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_a_dead_message_makes_room(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02, max_attempts=1)
    await bus.register("b", capacity=1, acknowledge="manual")
    await bus.send(_said("poison"))
    await _heard(bus, "b", 1)
    await bus.send(_said("next"), timeout=PATIENCE_S)
    assert await _heard(bus, "b", 1) == ["next"]


async def test_in_auto_mode_nothing_comes_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02)
    await bus.register("b")
    await bus.send(_said())
    await _heard(bus, "b", 1)
    with pytest.raises(ReceiveTimeoutError):
        await bus.receive("b", timeout=0.2)
    counts = await bus.stats()
    assert (counts.delivered, counts.acknowledged, counts.redelivered) == (1, 1, 0)


async def test_in_auto_mode_there_is_nothing_to_acknowledge(bus: MessageBus) -> None:
    await bus.register("b")
    message_id = await bus.send(_said())
    await _heard(bus, "b", 1)
    assert await bus.acknowledge("b", message_id) == 0


# Time to live.


async def test_an_expired_message_is_never_delivered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", "stale", expires_at=time.time() - 1))
    await bus.send(_said("fresh"))
    assert await _heard(bus, "b", 1) == ["fresh"]
    [letter] = await _letters(bus, 1, "b")
    assert (letter.message.payload, letter.reason, letter.attempts) == ("stale", "expired", 0)
    assert (await bus.stats()).expired == 1


async def test_a_message_expires_while_it_waits_and_whoever_asks_sees_it(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", expires_at=time.time() + 0.05))
    [letter] = await _letters(bus, 1)
    assert letter.reason == "expired"
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_a_message_that_may_still_live_is_delivered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", "alive", expires_at=time.time() + 3_600))
    assert await _heard(bus, "b", 1) == ["alive"]
    assert await bus.dead_letters() == []


async def test_expired_messages_make_room(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(Message("a", "b", "note", "stale", expires_at=time.time() - 1))
    await bus.send(_said("fresh"))
    assert await _heard(bus, "b", 1) == ["fresh"]


# Duplicates.


async def test_an_id_is_accepted_once_per_recipient(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
    for name in ("b", "c", "b"):
        assert await bus.send(Message("a", name, "note", name, id="same")) == "same"
    assert await _heard(bus, "b", 1) == ["b"]
    assert await _heard(bus, "c", 1) == ["c"]
    assert await _is_empty(bus, "b")
    counts = await bus.stats()
    assert (counts.sent, counts.duplicates) == (2, 1)


async def test_an_id_is_remembered_after_its_message_was_taken(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", id="same"))
    await _heard(bus, "b", 1)
    await bus.send(Message("a", "b", "note", id="same"))
    assert await _is_empty(bus, "b")
    assert (await bus.stats()).duplicates == 1


async def test_an_id_is_a_duplicate_whoever_sends_it_from_wherever(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.send(Message("a", "b", "note", id="same"))
    await there.send(Message("c", "b", "note", id="same"))
    await _heard(here, "b", 1)
    assert await _is_empty(here, "b")


async def test_an_id_that_was_refused_may_be_sent_again(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(_said("first"))
    with pytest.raises(InboxFullError):
        await bus.send(Message("a", "b", "note", "second", id="retried"))
    await _heard(bus, "b", 1)
    await bus.send(Message("a", "b", "note", "second", id="retried"))
    assert await _heard(bus, "b", 1) == ["second"]


async def test_many_that_send_one_id_at_once_deliver_it_once(place: BusPlace) -> None:
    buses = [place.open() for _ in range(3)]
    await buses[0].register("b")
    sent = await _ended(*(bus.send(Message("a", "b", "note", id="same")) for bus in buses for _ in range(5)))
    assert sent == ["same"] * 15
    await _heard(buses[0], "b", 1)
    assert await _is_empty(buses[0], "b")


async def test_send_many_takes_an_id_once(bus: MessageBus) -> None:
    await bus.register("b")
    ids = await bus.send_many([Message("a", "b", "note", n, id=f"m-{n % 2}") for n in range(4)])
    assert ids == ["m-0", "m-1", "m-0", "m-1"]
    assert await _heard(bus, "b", 2) == [0, 1]
    assert await _is_empty(bus, "b")


# Requests and replies.


async def _answer(bus: MessageBus, agent_id: str, how_many: int) -> None:
    for _ in range(how_many):
        request = await bus.receive(agent_id, timeout=PATIENCE_S)
        await bus.reply(request, {"answer to": request.payload})


async def test_a_request_gets_its_reply(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("a")
    await there.register("b")
    answering = asyncio.create_task(_answer(there, "b", 1))
    reply = await here.request(_said("question"), timeout=PATIENCE_S)
    assert (reply.sender, reply.recipient, reply.type, reply.payload) == (
        "b",
        "a",
        "reply",
        {"answer to": "question"},
    )
    await _ended(answering)


async def test_a_reply_carries_the_correlation_id_of_its_request(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    answering = asyncio.create_task(_answer(bus, "b", 1))
    message = Message("a", "b", "ask", correlation_id="c-7")
    assert (await bus.request(message, timeout=PATIENCE_S)).correlation_id == "c-7"
    await _ended(answering)


async def test_a_correlation_id_is_made_where_there_is_none(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    assert request.correlation_id
    await bus.reply(request, type="done")
    reply = await asyncio.wait_for(asking, PATIENCE_S)
    assert (reply.correlation_id, reply.type, reply.payload) == (request.correlation_id, "done", None)


async def test_many_requests_of_one_agent_are_answered_in_any_order(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = [asyncio.create_task(bus.request(_said(number), timeout=PATIENCE_S)) for number in range(50)]
    requests = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(50)]
    for request in reversed(requests):
        await bus.reply(request, request.payload)
    replies = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
    assert [reply.payload for reply in replies] == list(range(50))


async def test_a_reply_does_not_pass_through_the_inbox(bus: MessageBus) -> None:
    await bus.register("a", capacity=1, overflow="reject")
    await bus.register("b")
    await bus.send(_said("fills it", to="a", sender="c"))
    answering = asyncio.create_task(_answer(bus, "b", 1))
    await bus.request(_said(), timeout=PATIENCE_S)
    await _ended(answering)
    assert await _heard(bus, "a", 1) == ["fills it"]
    assert await _is_empty(bus, "a")


async def test_a_request_that_nobody_answers_ends_at_its_deadline(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    with pytest.raises(RequestTimeoutError) as caught:
        await bus.request(_said(), timeout=0.05)
    assert isinstance(caught.value, TimeoutError)


async def test_a_late_reply_is_counted_and_goes_to_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    with pytest.raises(RequestTimeoutError):
        await bus.request(_said("first"), timeout=0.05)
    late = await bus.receive("b", timeout=PATIENCE_S)
    asking = asyncio.create_task(bus.request(_said("second"), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    await bus.reply(late, "late")
    await bus.reply(request, "in time")
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "in time"
    assert (await _until(bus, lambda counts: counts.late_replies == 1)).late_replies == 1
    assert await _is_empty(bus, "a")


async def test_a_second_reply_is_a_late_one(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    await bus.reply(request, 1)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == 1
    await bus.reply(request, 2)
    await _until(bus, lambda counts: counts.late_replies == 1)


async def test_a_request_to_an_unknown_agent_fails_at_once(bus: MessageBus) -> None:
    await bus.register("a")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.request(_said(to="ghost"), timeout=PATIENCE_S)
    assert caught.value.agent_id == "ghost"


async def test_only_a_registered_agent_may_ask(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.request(_said(), timeout=PATIENCE_S)
    assert caught.value.agent_id == "a"


async def test_a_message_that_is_no_request_cannot_be_answered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(_said())
    message = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(InvalidMessageError):
        await bus.reply(message)


async def test_a_request_in_manual_mode_still_has_to_be_acknowledged(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b", acknowledge="manual")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    await bus.reply(request)
    await asyncio.wait_for(asking, PATIENCE_S)
    assert (await bus.stats()).queued["b"] == 1
    assert await bus.acknowledge("b", request.id) == 1


async def test_a_request_to_a_group_gets_the_first_reply(bus: MessageBus) -> None:
    for name in ("a", "b", "c"):
        await bus.register(name)
    for name in ("b", "c"):
        await bus.join(name, "group")
    asking = asyncio.create_task(bus.request(_said(to="group"), timeout=PATIENCE_S))
    for name in ("b", "c"):
        await bus.reply(await bus.receive(name, timeout=PATIENCE_S), name)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "b"
    await _until(bus, lambda counts: counts.late_replies == 1)


async def test_a_reply_over_the_limit_is_refused(place: BusPlace) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(PayloadTooLargeError):
        await bus.reply(request, "x" * 2_000)
    await bus.reply(request, "short")
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "short"


# Giving up.


async def test_a_cancelled_receiver_loses_no_message(bus: MessageBus) -> None:
    await bus.register("b")
    for number in range(20):
        waiting = asyncio.create_task(bus.receive("b"))
        await asyncio.sleep(0)
        sending = asyncio.create_task(bus.send(_said(number)))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        waiting.cancel()
        outcome, _ = await _ended(waiting, sending)
        heard = outcome.payload if isinstance(outcome, Message) else (await _heard(bus, "b", 1))[0]
        assert heard == number


async def test_of_two_receivers_the_other_one_gets_what_a_cancelled_one_was_woken_for(bus: MessageBus) -> None:
    await bus.register("b")
    first = asyncio.create_task(bus.receive("b"))
    await _settled(first)
    second = asyncio.create_task(bus.receive("b"))
    await _settled(second)
    sending = asyncio.create_task(bus.send(_said("kept")))
    await asyncio.sleep(0)
    first.cancel()
    outcome, _ = await _ended(first, sending)
    if isinstance(outcome, Message):
        second.cancel()
        await _ended(second)
    else:
        assert (await asyncio.wait_for(second, PATIENCE_S)).payload == "kept"


async def test_a_cancelled_sender_that_waited_for_room_sends_nothing(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(_said("first"))
    waiting = asyncio.create_task(bus.send(_said("given up"), timeout=PATIENCE_S))
    await _settled(waiting)
    waiting.cancel()
    await _ended(waiting)
    await _heard(bus, "b", 1)
    await bus.send(_said("next"))
    assert await _heard(bus, "b", 1) == ["next"]


async def test_a_cancelled_request_leaves_its_reply_to_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    asking.cancel()
    await _ended(asking)
    await bus.reply(request)
    await _until(bus, lambda counts: counts.late_replies == 1)
    assert await _is_empty(bus, "a")


# A race.


async def test_twenty_takers_of_one_inbox_take_each_message_once(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    heard: list[Payload] = []

    async def take() -> None:
        while len(heard) < 300:
            try:
                heard.extend(each.payload for each in await here.receive_many("b", 3, timeout=0.5))
            except ReceiveTimeoutError:
                continue

    takers = [asyncio.create_task(take()) for _ in range(20)]
    for number in range(300):
        await there.send(_said(number))
    await _ended(*takers)
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
                await owners[name].send(_said(number, to=other, sender=name))

    async def read(name: str) -> Counter[tuple[str, Payload]]:
        messages = [await owners[name].receive(name, timeout=PATIENCE_S) for _ in range(60)]
        return Counter((each.sender, each.payload) for each in messages)

    outcomes = await _ended(*(write(name) for name in names), *(read(name) for name in names))
    assert outcomes[6:] == [Counter((name, number) for name in names for number in range(10))] * 6


# Counts and history.


async def test_the_counts_tell_what_happened(place: BusPlace) -> None:
    bus = place.open()
    await bus.register("b")
    await bus.send_many(_said(number) for number in range(5))
    await _heard(bus, "b", 3)
    counts = await bus.stats()
    assert counts.transport == place.name
    assert (counts.sent, counts.delivered, counts.acknowledged, counts.queued["b"]) == (5, 3, 3, 2)
    assert counts.messages_per_second > 0


async def test_latencies_are_summed_up(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send_many(_said(number) for number in range(20))
    await _heard(bus, "b", 20)
    latency = (await bus.stats()).latency_us
    assert set(latency) == {"min", "p50", "p95", "p99", "max"}
    ordered = [latency[name] for name in ("min", "p50", "p95", "p99", "max")]
    assert ordered == sorted(ordered)
    assert ordered[0] >= 0


async def test_sent_counts_once_per_inbox(bus: MessageBus) -> None:
    for name in ("b", "c", "d"):
        await bus.register(name)
    await bus.broadcast(_said())
    for name in ("b", "c", "d"):
        await _heard(bus, name, 1)
    counts = await bus.stats()
    assert (counts.sent, counts.delivered) == (3, 3)


async def test_what_waits_and_what_is_in_hand_is_queued(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    await bus.send_many(_said(number) for number in range(3))
    await _heard(bus, "b", 1)
    assert (await bus.stats()).queued["b"] == 3


async def test_dead_letters_are_counted(bus: MessageBus) -> None:
    for _ in range(3):
        with pytest.raises(UnknownAgentError):
            await bus.send(_said(to="ghost"))
    assert (await bus.stats()).dead_letters == 3


async def test_history_has_the_last_messages_newest_last_without_payloads(bus: MessageBus) -> None:
    await bus.register("b")
    ids = [await bus.send(_said(number, priority=Priority.HIGH)) for number in range(5)]
    headers = await bus.history(3)
    assert [header.id for header in headers] == ids[2:]
    first = headers[0]
    assert (first.sender, first.recipient, first.type, first.priority) == ("a", "b", "note", Priority.HIGH)
    assert first.at == pytest.approx(time.time(), abs=PATIENCE_S)
    assert [header.payload for header in headers] == [None] * 3


async def test_history_has_payloads_where_they_are_kept(place: BusPlace) -> None:
    bus = place.open(keep_payloads=True)
    await bus.register("b")
    await bus.send(_said({"kept": True}))
    assert [header.payload for header in await bus.history()] == [{"kept": True}]


async def test_history_is_bounded(place: BusPlace) -> None:
    bus = place.open(history_limit=10)
    await bus.register("b")
    await bus.send_many(_said(number) for number in range(25))
    assert len(await bus.history(1_000)) == 10


async def test_a_tap_is_told_what_happens(place: BusPlace) -> None:
    told: list[tuple[str, Payload]] = []
    bus = place.open(tap=lambda happened, message: told.append((happened, message.payload)))
    await bus.register("b")
    await bus.send(_said("news"))
    await _heard(bus, "b", 1)
    assert told[:2] == [("sent", "news"), ("delivered", "news")]


async def test_a_tap_that_fails_harms_no_message(place: BusPlace) -> None:
    def broken(_happened: str, _message: Message) -> None:
        raise RuntimeError("the collector is away")

    bus = place.open(tap=broken)
    await bus.register("b")
    await bus.send(_said("unharmed"))
    assert await _heard(bus, "b", 1) == ["unharmed"]


# The end.


async def test_closing_wakes_everybody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b", capacity=1)
    await bus.send(_said())
    waiting: list[asyncio.Task[object]] = [
        asyncio.create_task(bus.receive("a")),
        asyncio.create_task(bus.receive_many("a", 10, timeout=PATIENCE_S * 2)),
        asyncio.create_task(bus.send(_said(), timeout=PATIENCE_S * 2)),
    ]
    for task in waiting:
        await _settled(task)
    await bus.close()
    assert [type(each) for each in await _ended(*waiting)] == [BusClosedError] * 3


async def test_closing_wakes_who_waits_for_a_reply(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(_said(), timeout=PATIENCE_S * 2))
    await _settled(asking)
    await bus.close()
    assert [type(each) for each in await _ended(asking)] == [BusClosedError]


async def test_closing_twice_is_closing_once(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.close()
    await bus.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda bus: bus.register("b"),
        lambda bus: bus.unregister("a"),
        lambda bus: bus.join("a", "group"),
        lambda bus: bus.leave("a", "group"),
        lambda bus: bus.send(_said(to="a")),
        lambda bus: bus.send_many([_said(to="a")]),
        lambda bus: bus.broadcast(_said()),
        lambda bus: bus.receive("a", timeout=0),
        lambda bus: bus.receive_many("a", 1, timeout=0),
        lambda bus: bus.acknowledge("a", "id"),
        lambda bus: bus.request(_said(to="a"), timeout=1),
        lambda bus: bus.reply(Message("a", "b", "ask", correlation_id="c")),
        lambda bus: bus.dead_letters(),
        lambda bus: bus.stats(),
        lambda bus: bus.history(),
    ],
    ids=[
        "register",
        "unregister",
        "join",
        "leave",
        "send",
        "send_many",
        "broadcast",
        "receive",
        "receive_many",
        "acknowledge",
        "request",
        "reply",
        "dead_letters",
        "stats",
        "history",
    ],
)
async def test_nothing_goes_over_a_closed_bus(bus: MessageBus, call: Callable[[MessageBus], Awaitable[object]]) -> None:
    await bus.register("a")
    await bus.close()
    with pytest.raises(BusClosedError):
        await call(bus)


async def test_leaving_the_context_closes(place: BusPlace) -> None:
    bus = place.open()
    async with bus as same:
        assert same is bus
        await bus.register("a")
    with pytest.raises(BusClosedError):
        await bus.stats()


async def test_a_bus_that_was_never_used_closes_too(bus: MessageBus) -> None:
    await bus.close()
    with pytest.raises(BusClosedError):
        await bus.register("a")


async def test_the_names_of_a_closed_object_are_free(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    await here.close()
    if not place.shared:
        # There is no other object, so nobody is left who could take the name.
        with pytest.raises(BusClosedError):
            await there.register("b")
        return
    deadline = time.monotonic() + PATIENCE_S
    while await _is_taken(there, "b"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await there.send(_said("to the new one"))
    assert await _heard(there, "b", 1) == ["to the new one"]


async def _is_taken(bus: MessageBus, name: str) -> bool:
    try:
        await bus.register(name)
    except NameTakenError:
        return True
    return False


async def test_every_refusal_is_a_bus_error(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(_said())
    refused = await _ended(
        bus.send(_said(to="ghost")),
        bus.register("b"),
        bus.send(_said()),
        bus.send(_said(b"x" * 2_000_000)),
        bus.receive("ghost"),
        bus.register("x" * 200),
    )
    assert [isinstance(each, BusError) for each in refused] == [True] * 6


# Many.


async def test_idle_receivers_do_not_keep_a_message_from_another(bus: MessageBus) -> None:
    names = [f"idle-{number}" for number in range(200)]
    for name in names:
        await bus.register(name)
    idle: list[asyncio.Task[object]] = [asyncio.create_task(bus.receive(name)) for name in names]
    await _settled(idle[-1])
    await bus.register("b")
    await bus.send(_said("for one"))
    assert await _heard(bus, "b", 1) == ["for one"]
    assert not any(task.done() for task in idle)
    for task in idle:
        task.cancel()
    await _ended(*idle)
