"""What the message bus promises, held against every transport: that what is sent is received."""

from __future__ import annotations

import asyncio
import time

import pytest

from application.ports.message_bus import Message, MessageBus, Payload, Priority
from domain.errors.bus import InvalidMessageError, PayloadTooLargeError, ReceiveTimeoutError, UnknownAgentError
from tests.integration.contracts.bus_talk import hear, is_empty, said, settle
from tests.integration.contracts.buses import PATIENCE_S, BusPlace

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


async def test_a_message_arrives_with_every_field_it_was_sent_with(bus: MessageBus) -> None:
    await bus.register("b")
    expires_at = time.time() + 3_600
    sent = Message("a", "b", "note", {"n": 1}, Priority.HIGH, "c-1", expires_at, "id-1")
    assert await bus.send(sent) == "id-1"
    assert await bus.receive("b", timeout=PATIENCE_S) == sent


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
async def test_a_payload_arrives_as_it_was_sent(bus: MessageBus, payload: Payload) -> None:
    await bus.register("b")
    await bus.send(said(payload))
    [heard] = await hear(bus, "b", 1)
    assert heard == payload
    assert type(heard) is type(payload)


async def test_an_empty_id_is_filled_in(bus: MessageBus) -> None:
    await bus.register("b")
    message_id = await bus.send(said())
    assert message_id
    assert (await bus.receive("b", timeout=PATIENCE_S)).id == message_id


async def test_one_object_sent_twice_is_two_messages(bus: MessageBus) -> None:
    await bus.register("b")
    message = said("again")
    ids = {await bus.send(message), await bus.send(message)}
    assert len(ids) == 2
    assert await hear(bus, "b", 2) == ["again", "again"]


async def test_a_sender_need_not_be_registered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said("hello", sender="nobody"))
    assert await hear(bus, "b", 1) == ["hello"]


async def test_an_agent_may_write_to_itself(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.send(said("to myself", to="a"))
    assert await hear(bus, "a", 1) == ["to myself"]


async def test_a_receiver_that_waits_gets_what_is_sent_later(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive("b"))
    await settle(bus, waiting)
    await bus.send(said("at last"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "at last"


async def test_an_object_hears_what_another_object_sends(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b")
    waiting = asyncio.create_task(here.receive("b"))
    await settle(here, waiting)
    await there.send(said("across"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "across"


async def test_what_was_sent_is_heard_once(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said())
    await hear(bus, "b", 1)
    assert await is_empty(bus, "b")


async def test_a_receiver_waits_no_longer_than_it_said(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(ReceiveTimeoutError) as caught:
        await bus.receive("b", timeout=0.01)
    assert isinstance(caught.value, TimeoutError)


async def test_without_patience_a_receiver_takes_what_is_there(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said("there"))
    assert (await bus.receive("b", timeout=0)).payload == "there"


async def test_receive_many_takes_what_is_there_and_no_more_than_asked_for(bus: MessageBus) -> None:
    await bus.register("b")
    for number in range(5):
        await bus.send(said(number))
    assert [each.payload for each in await bus.receive_many("b", 3, timeout=PATIENCE_S)] == [0, 1, 2]
    assert [each.payload for each in await bus.receive_many("b", 100, timeout=PATIENCE_S)] == [3, 4]


async def test_receive_many_waits_for_the_first(bus: MessageBus) -> None:
    await bus.register("b")
    waiting = asyncio.create_task(bus.receive_many("b", 10))
    await settle(bus, waiting)
    await bus.send(said("first"))
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
    ids = await bus.send_many(said(number) for number in range(250))
    heard: list[Message] = []
    while len(heard) < 250:
        heard += await bus.receive_many("b", 100, timeout=PATIENCE_S)
    assert [each.payload for each in heard] == list(range(250))
    assert [each.id for each in heard] == ids


async def test_send_many_tries_the_others_before_it_raises_the_first_failure(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.send_many([said(1), said(to="ghost"), said(2), said(to="phantom"), said(3)])
    assert caught.value.agent_id == "ghost"
    assert await hear(bus, "b", 3) == [1, 2, 3]


async def test_send_many_of_nothing_sends_nothing(bus: MessageBus) -> None:
    await bus.register("b")
    assert await bus.send_many([]) == []
    assert (await bus.stats()).sent == 0


async def test_send_many_raises_the_first_failure_in_the_order_of_its_messages(place: BusPlace) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("b")
    with pytest.raises(UnknownAgentError):
        await bus.send_many([said(1), said(to="ghost"), said("x" * 2_000), said(2)])
    with pytest.raises(PayloadTooLargeError):
        await bus.send_many([said(3), said("x" * 2_000), said(to="ghost"), said(4)])
    assert await hear(bus, "b", 4) == [1, 2, 3, 4]


async def test_send_many_to_several_keeps_the_order_of_each(bus: MessageBus) -> None:
    for name in ("b", "c"):
        await bus.register(name)
    ids = await bus.send_many(said(number, to="bc"[number % 2]) for number in range(40))
    for name, numbers in (("b", range(0, 40, 2)), ("c", range(1, 40, 2))):
        messages = [await bus.receive(name, timeout=PATIENCE_S) for _ in numbers]
        assert [(each.payload, each.id) for each in messages] == [(number, ids[number]) for number in numbers]


async def test_a_priority_may_be_given_as_its_number(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said(priority=2))  # type: ignore[arg-type]
    await bus.send_many([said(priority=0), said(priority=1)])  # type: ignore[arg-type]
    messages = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(3)]
    assert [each.priority for each in messages] == [Priority.HIGH, Priority.NORMAL, Priority.LOW]
    assert {type(each.priority) for each in messages} == {Priority}


@pytest.mark.parametrize("priority", [3, -1, "high", None, 0.5], ids=repr)
async def test_a_priority_that_is_none_is_refused(bus: MessageBus, priority: object) -> None:
    await bus.register("b")
    for send in (bus.send(said(priority=priority)), bus.send_many([said(), said(priority=priority)])):  # type: ignore[arg-type]
        with pytest.raises(InvalidMessageError) as caught:
            await send
        assert caught.value.field == "priority"


@pytest.mark.parametrize("field", ["sender", "recipient", "type", "id", "correlation_id"])
@pytest.mark.parametrize("value", ["", 5, "x" * 129, "\ud800"], ids=["empty", "a number", "long", "half"])
async def test_a_field_that_no_bus_can_carry_is_refused_whatever_was_sent_before(
    bus: MessageBus, field: str, value: object
) -> None:
    await bus.register("b")
    await bus.send(said(1))
    message = said(2)
    setattr(message, field, value)
    if (field, value) == ("id", ""):
        await bus.send(message)
        assert await hear(bus, "b", 2) == [1, 2]
        return
    with pytest.raises(InvalidMessageError) as caught:
        await bus.send(message)
    assert caught.value.field == field
    with pytest.raises(InvalidMessageError):
        await bus.send_many([said(3), message, said(4)])
    assert await hear(bus, "b", 3) == [1, 3, 4]
