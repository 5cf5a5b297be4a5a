"""What the message bus promises, held against every transport: requests and their replies."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.message_bus import Message, MessageBus, Priority
from domain.errors.bus import (
    InboxFullError,
    InvalidMessageError,
    PayloadTooLargeError,
    RequestTimeoutError,
    UnknownAgentError,
)
from tests.integration.contracts.bus_talk import ended, hear, is_empty, said, until
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def _answer(bus: MessageBus, agent_id: str, how_many: int) -> None:
    for _ in range(how_many):
        request = await bus.receive(agent_id, timeout=PATIENCE_S)
        await bus.reply(request, {"answer to": request.payload})


async def test_a_request_gets_its_reply(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("a")
    await there.register("b")
    answering = asyncio.create_task(_answer(there, "b", 1))
    reply = await here.request(said("question"), timeout=PATIENCE_S)
    assert (reply.sender, reply.recipient, reply.type, reply.payload) == (
        "b",
        "a",
        "reply",
        {"answer to": "question"},
    )
    await ended(answering)


async def test_a_reply_carries_the_correlation_id_of_its_request(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    answering = asyncio.create_task(_answer(bus, "b", 1))
    message = Message("a", "b", "ask", correlation_id="c-7")
    assert (await bus.request(message, timeout=PATIENCE_S)).correlation_id == "c-7"
    await ended(answering)


async def test_a_correlation_id_is_made_where_there_is_none(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    assert request.correlation_id
    await bus.reply(request, type="done")
    reply = await asyncio.wait_for(asking, PATIENCE_S)
    assert (reply.correlation_id, reply.type, reply.payload) == (request.correlation_id, "done", None)


async def test_many_requests_of_one_agent_are_answered_in_any_order(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = [asyncio.create_task(bus.request(said(number), timeout=PATIENCE_S)) for number in range(50)]
    requests = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(50)]
    for request in reversed(requests):
        await bus.reply(request, request.payload)
    replies = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE_S)
    assert [reply.payload for reply in replies] == list(range(50))


async def test_a_reply_does_not_pass_through_the_inbox(bus: MessageBus) -> None:
    await bus.register("a", capacity=1, overflow="reject")
    await bus.register("b")
    await bus.send(said("fills it", to="a", sender="c"))
    answering = asyncio.create_task(_answer(bus, "b", 1))
    await bus.request(said(), timeout=PATIENCE_S)
    await ended(answering)
    assert await hear(bus, "a", 1) == ["fills it"]
    assert await is_empty(bus, "a")


async def test_a_request_that_nobody_answers_ends_at_its_deadline(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    with pytest.raises(RequestTimeoutError) as caught:
        await bus.request(said(), timeout=0.05)
    assert isinstance(caught.value, TimeoutError)


async def test_a_late_reply_is_counted_and_goes_to_nobody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    with pytest.raises(RequestTimeoutError):
        await bus.request(said("first"), timeout=0.05)
    late = await bus.receive("b", timeout=PATIENCE_S)
    asking = asyncio.create_task(bus.request(said("second"), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    await bus.reply(late, "late")
    await bus.reply(request, "in time")
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "in time"
    assert (await until(bus, lambda counts: counts.late_replies == 1)).late_replies == 1
    assert await is_empty(bus, "a")


async def test_a_second_reply_is_a_late_one(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    await bus.reply(request, 1)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == 1
    await bus.reply(request, 2)
    await until(bus, lambda counts: counts.late_replies == 1)


async def test_a_request_to_an_unknown_agent_fails_at_once(bus: MessageBus) -> None:
    await bus.register("a")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.request(said(to="ghost"), timeout=PATIENCE_S)
    assert caught.value.agent_id == "ghost"


async def test_only_a_registered_agent_may_ask(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(UnknownAgentError) as caught:
        await bus.request(said(), timeout=PATIENCE_S)
    assert caught.value.agent_id == "a"


async def test_a_message_that_is_no_request_cannot_be_answered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(said())
    message = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(InvalidMessageError):
        await bus.reply(message)


async def test_a_request_in_manual_mode_still_has_to_be_acknowledged(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b", acknowledge="manual")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
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
    asking = asyncio.create_task(bus.request(said(to="group"), timeout=PATIENCE_S))
    for name in ("b", "c"):
        await bus.reply(await bus.receive(name, timeout=PATIENCE_S), name)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "b"
    await until(bus, lambda counts: counts.late_replies == 1)


async def test_a_reply_over_the_limit_is_refused(place: BusPlace) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
    request = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(PayloadTooLargeError):
        await bus.reply(request, "x" * 2_000)
    await bus.reply(request, "short")
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == "short"


async def test_a_correlation_id_in_flight_is_refused_and_free_afterwards(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("a")
    await there.register("b")
    question = Message("a", "b", "ask", correlation_id="c-7")
    asking = asyncio.create_task(here.request(question, timeout=PATIENCE_S))
    request = await there.receive("b", timeout=PATIENCE_S)
    with pytest.raises(InvalidMessageError) as caught:
        await here.request(question, timeout=PATIENCE_S)
    assert caught.value.field == "correlation_id"
    await there.reply(request, 1)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == 1
    answering = asyncio.create_task(_answer(there, "b", 1))
    assert (await here.request(question, timeout=PATIENCE_S)).correlation_id == "c-7"
    await ended(answering)


async def test_a_request_that_is_refused_waits_for_nothing(place: BusPlace) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("a")
    await bus.register("b", capacity=1, overflow="reject")
    with pytest.raises(PayloadTooLargeError):
        await bus.request(said("x" * 2_000), timeout=PATIENCE_S)
    await bus.send(said("fills it"))
    with pytest.raises(InboxFullError):
        await bus.request(said(), timeout=PATIENCE_S)


async def test_a_request_to_an_inbox_without_room_ends_at_its_deadline(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b", capacity=1)
    await bus.send(said("fills it"))
    with pytest.raises((RequestTimeoutError, InboxFullError)):
        await bus.request(said(), timeout=0.02)
    assert await hear(bus, "b", 1) == ["fills it"]


async def test_an_agent_may_ask_itself(bus: MessageBus) -> None:
    await bus.register("a")
    answering = asyncio.create_task(_answer(bus, "a", 1))
    reply = await bus.request(said("who am I?", to="a"), timeout=PATIENCE_S)
    assert reply.payload == {"answer to": "who am I?"}
    await ended(answering)


async def test_who_asks_learns_that_it_was_unregistered(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S))
    await bus.receive("b", timeout=PATIENCE_S)
    await bus.unregister("a")
    assert [type(each) for each in await ended(asking)] == [UnknownAgentError]


async def test_a_request_keeps_its_priority(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    await bus.send(said("normal"))
    asking = asyncio.create_task(bus.request(said("urgent", priority=Priority.HIGH), timeout=PATIENCE_S))
    await until(bus, lambda counts: counts.queued["b"] == 2)
    request = await bus.receive("b", timeout=PATIENCE_S)
    assert request.payload == "urgent"
    await bus.reply(request)
    await ended(asking)
