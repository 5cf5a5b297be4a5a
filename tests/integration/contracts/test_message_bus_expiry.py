"""What the message bus promises, held against every transport: that nothing is delivered too late."""

from __future__ import annotations

import time

import pytest

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import InvalidMessageError, ReceiveTimeoutError
from tests.integration.contracts.bus_talk import hear, is_empty, letters_of, said
from tests.integration.contracts.buses import BusPlace


async def test_an_expired_message_is_never_delivered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", "stale", expires_at=time.time() - 1))
    await bus.send(said("fresh"))
    assert await hear(bus, "b", 1) == ["fresh"]
    [letter] = await letters_of(bus, 1, "b")
    assert (letter.message.payload, letter.reason, letter.attempts) == ("stale", "expired", 0)
    assert (await bus.stats()).expired == 1


async def test_a_message_expires_while_it_waits_and_whoever_asks_sees_it(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", expires_at=time.time() + 0.05))
    [letter] = await letters_of(bus, 1)
    assert letter.reason == "expired"
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_a_message_that_may_still_live_is_delivered(bus: MessageBus) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", "alive", expires_at=time.time() + 3_600))
    assert await hear(bus, "b", 1) == ["alive"]
    assert await bus.dead_letters() == []


async def test_expired_messages_make_room(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject")
    await bus.send(Message("a", "b", "note", "stale", expires_at=time.time() - 1))
    await bus.send(said("fresh"))
    assert await hear(bus, "b", 1) == ["fresh"]


async def test_a_message_that_expires_in_its_agents_hands_does_not_come_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.1)
    await bus.register("b", acknowledge="manual")
    await bus.send(Message("a", "b", "note", "brief", expires_at=time.time() + 0.05))
    try:
        await bus.receive("b", timeout=0)
    except ReceiveTimeoutError:
        # So slow a machine that it had expired before it could be taken.
        attempts = 0
    else:
        attempts = 1
    [letter] = await letters_of(bus, 1, "b")
    assert (letter.message.payload, letter.reason, letter.attempts) == ("brief", "expired", attempts)
    assert await is_empty(bus, "b")
    assert (await bus.stats()).queued.get("b", 0) == 0


@pytest.mark.parametrize("moment", [float("inf"), float("-inf"), float("nan"), 10**400, True, "soon"], ids=str)
async def test_an_expiry_that_is_no_moment_is_refused(bus: MessageBus, moment: float) -> None:
    await bus.register("b")
    with pytest.raises(InvalidMessageError) as caught:
        await bus.send(Message("a", "b", "note", expires_at=moment))
    assert caught.value.field == "expires_at"
    assert await is_empty(bus, "b")


@pytest.mark.parametrize("moment", [1e300, 1 << 70], ids=repr)
async def test_an_expiry_far_beyond_any_clock_arrives_as_it_was_sent(bus: MessageBus, moment: float) -> None:
    await bus.register("b")
    await bus.send(Message("a", "b", "note", expires_at=moment))
    assert (await bus.receive("b", timeout=0)).expires_at == moment
