"""What the message bus promises, held against every transport: how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import BusClosedError, BusError, NameTakenError
from tests.integration.contracts.bus_talk import ended, hear, said, settle
from tests.integration.contracts.buses import PATIENCE_S, BusPlace
from tests.patience import eventually_in_loop


async def test_closing_wakes_everybody(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b", capacity=1)
    await bus.send(said())
    waiting: list[asyncio.Task[object]] = [
        asyncio.create_task(bus.receive("a")),
        asyncio.create_task(bus.receive_many("a", 10, timeout=PATIENCE_S * 2)),
        asyncio.create_task(bus.send(said(), timeout=PATIENCE_S * 2)),
    ]
    for task in waiting:
        await settle(bus, task)
    await bus.close()
    assert [type(each) for each in await ended(*waiting)] == [BusClosedError] * 3


async def test_closing_wakes_who_waits_for_a_reply(bus: MessageBus) -> None:
    await bus.register("a")
    await bus.register("b")
    asking = asyncio.create_task(bus.request(said(), timeout=PATIENCE_S * 2))
    await settle(bus, asking)
    await bus.close()
    assert [type(each) for each in await ended(asking)] == [BusClosedError]


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
        lambda bus: bus.send(said(to="a")),
        lambda bus: bus.send_many([said(to="a")]),
        lambda bus: bus.broadcast(said()),
        lambda bus: bus.receive("a", timeout=0),
        lambda bus: bus.receive_many("a", 1, timeout=0),
        lambda bus: bus.acknowledge("a", "id"),
        lambda bus: bus.request(said(to="a"), timeout=1),
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
    await eventually_in_loop(lambda: _took(there, "b"))
    await there.send(said("to the new one"))
    assert await hear(there, "b", 1) == ["to the new one"]


async def _took(bus: MessageBus, name: str) -> bool:
    try:
        await bus.register(name)
    except NameTakenError:
        return False
    return True


async def test_every_refusal_is_a_bus_error(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(said())
    refused = await ended(
        bus.send(said(to="ghost")),
        bus.register("b"),
        bus.send(said()),
        bus.send(said(b"x" * 2_000_000)),
        bus.receive("ghost"),
        bus.register("x" * 200),
    )
    assert [isinstance(each, BusError) for each in refused] == [True] * 6
