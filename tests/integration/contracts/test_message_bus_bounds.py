"""What the message bus promises, held against every transport: that nothing grows without bounds."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.message_bus import MessageBus, Payload, Priority
from domain.errors.bus import InboxFullError, InvalidMessageError, PayloadTooLargeError
from tests.integration.contracts.bus_talk import ended, hear, is_empty, said, settle
from tests.integration.contracts.buses import PATIENCE_S, BusPlace


async def test_a_full_inbox_that_rejects_says_so_at_once(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="reject")
    for number in range(2):
        await bus.send(said(number))
    with pytest.raises(InboxFullError) as caught:
        await bus.send(said(2))
    assert (caught.value.agent_id, caught.value.capacity) == ("b", 2)
    assert (await bus.stats()).rejected == 1
    assert await hear(bus, "b", 2) == [0, 1]
    assert await is_empty(bus, "b")


async def test_a_sender_waits_for_room_and_gets_it(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said("first"))
    waiting = asyncio.create_task(bus.send(said("second"), timeout=PATIENCE_S))
    await settle(bus, waiting)
    assert await hear(bus, "b", 1) == ["first"]
    assert await asyncio.wait_for(waiting, PATIENCE_S)
    assert await hear(bus, "b", 1) == ["second"]


async def test_a_sender_elsewhere_waits_for_room_and_gets_it(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b", capacity=1)
    await there.send(said("first"))
    waiting = asyncio.create_task(there.send(said("second"), timeout=PATIENCE_S))
    await settle(there, waiting)
    assert await hear(here, "b", 2) == ["first", "second"]
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_sender_waits_for_room_no_longer_than_it_said(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said("first"))
    with pytest.raises(InboxFullError):
        await bus.send(said("second"), timeout=0.01)
    assert await hear(bus, "b", 1) == ["first"]
    assert await is_empty(bus, "b")


async def test_senders_that_wait_for_room_come_in_order(bus: MessageBus) -> None:
    await bus.register("b", capacity=1)
    await bus.send(said(0))
    waiting = []
    for number in range(1, 5):
        waiting.append(asyncio.create_task(bus.send(said(number), timeout=PATIENCE_S)))
        await settle(bus, waiting[-1])
    assert await hear(bus, "b", 5) == [0, 1, 2, 3, 4]
    await ended(*waiting)


async def test_a_flood_through_a_small_inbox_loses_nothing(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b", capacity=7)

    async def flood(bus: MessageBus, sender: str) -> None:
        for number in range(100):
            await bus.send(said(number, sender=sender), timeout=PATIENCE_S)

    floods = [asyncio.create_task(flood(here, "a")), asyncio.create_task(flood(there, "c"))]
    heard = [await here.receive("b", timeout=PATIENCE_S) for _ in range(200)]
    await ended(*floods)
    for sender in "ac":
        assert [each.payload for each in heard if each.sender == sender] == list(range(100))


async def test_drop_oldest_drops_the_oldest_of_the_lowest_priority(bus: MessageBus) -> None:
    await bus.register("b", capacity=3, overflow="drop_oldest")
    await bus.send(said("low 1", priority=Priority.LOW))
    await bus.send(said("low 2", priority=Priority.LOW))
    await bus.send(said("high", priority=Priority.HIGH))
    await bus.send(said("normal"))
    assert [letter.message.payload for letter in await bus.dead_letters()] == ["low 1"]
    assert (await bus.stats()).dropped == 1
    assert await hear(bus, "b", 3) == ["high", "normal", "low 2"]


async def test_drop_oldest_drops_the_new_one_when_that_is_the_lowest(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="drop_oldest")
    await bus.send(said("high", priority=Priority.HIGH))
    await bus.send(said("normal"))
    assert await bus.send(said("low", priority=Priority.LOW))
    [letter] = await bus.dead_letters()
    assert (letter.message.payload, letter.reason) == ("low", "inbox_full")
    assert await hear(bus, "b", 2) == ["high", "normal"]


async def test_drop_oldest_never_drops_what_is_in_its_agents_hands(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="drop_oldest", acknowledge="manual")
    await bus.send(said("in hand"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    await bus.send(said("new"))
    assert [letter.message.payload for letter in await bus.dead_letters()] == ["new"]
    assert await bus.acknowledge("b", taken.id) == 1


async def test_a_group_message_drops_the_oldest_where_that_was_chosen(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="drop_oldest")
    await bus.join("b", "group")
    await bus.send(said("old"))
    await bus.send(said("new", to="group"))
    assert await hear(bus, "b", 1) == ["new"]


async def test_what_is_not_acknowledged_takes_room(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, overflow="reject", acknowledge="manual")
    await bus.send(said("first"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    with pytest.raises(InboxFullError):
        await bus.send(said("second"))
    await bus.acknowledge("b", taken.id)
    await bus.send(said("third"))
    assert await hear(bus, "b", 1) == ["third"]


async def test_an_acknowledgement_lets_a_sender_in(bus: MessageBus) -> None:
    await bus.register("b", capacity=1, acknowledge="manual")
    await bus.send(said("first"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    waiting = asyncio.create_task(bus.send(said("second"), timeout=PATIENCE_S))
    await settle(bus, waiting)
    await bus.acknowledge("b", taken.id)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert await hear(bus, "b", 1) == ["second"]


async def test_the_bus_says_how_large_an_inbox_is_unless_the_agent_does(place: BusPlace) -> None:
    bus = place.open(capacity=1, overflow="reject")
    await bus.register("small")
    await bus.register("large", capacity=2)
    for name in ("small", "large"):
        await bus.send(said(to=name))
    await bus.send(said(to="large"))
    with pytest.raises(InboxFullError):
        await bus.send(said(to="small"))


@pytest.mark.parametrize("payload", ["x" * 2_000, b"x" * 2_000], ids=["text", "bytes"])
async def test_a_payload_over_the_limit_is_refused(place: BusPlace, payload: Payload) -> None:
    bus = place.open(max_payload_bytes=1_000)
    await bus.register("b")
    with pytest.raises(PayloadTooLargeError) as caught:
        await bus.send(said(payload))
    assert caught.value.size >= 2_000
    assert caught.value.limit == 1_000
    assert await is_empty(bus, "b")


async def test_a_payload_of_the_size_allowed_is_carried(bus: MessageBus) -> None:
    await bus.register("b")
    payload = "x" * 1_000_000
    await bus.send(said(payload))
    assert await hear(bus, "b", 1) == [payload]


async def test_a_payload_that_is_no_data_is_refused(bus: MessageBus) -> None:
    await bus.register("b")
    with pytest.raises(InvalidMessageError):
        await bus.send(said(object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "limits",
    [
        {"capacity": 0},
        {"overflow": "explode"},
        {"visibility_s": 0},
        {"max_attempts": 0},
        {"max_payload_bytes": -1},
        {"visibility_s": float("nan")},
        {"visibility_s": float("inf")},
        {"visibility_s": True},
        {"capacity": True},
        {"capacity": 2.5},
        {"capacity": 1 << 64},
        {"capacity": "9"},
        {"max_attempts": 2.5},
        {"max_payload_bytes": float("nan")},
    ],
    ids=repr,
)
async def test_limits_that_mean_nothing_are_refused(place: BusPlace, limits: dict[str, object]) -> None:
    [name] = limits
    with pytest.raises(ValueError, match="explode" if name == "overflow" else name):
        place.open(**limits)


@pytest.mark.parametrize(
    "settings",
    [
        {"overflow": "explode"},
        {"acknowledge": "maybe"},
        {"capacity": 0},
        {"capacity": True},
        {"capacity": 2.5},
        {"capacity": float("nan")},
        {"capacity": 1 << 64},
        {"capacity": "9"},
    ],
    ids=repr,
)
async def test_settings_of_an_inbox_that_mean_nothing_are_refused(bus: MessageBus, settings: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        await bus.register("b", **settings)  # type: ignore[arg-type]
    await bus.register("b")


async def test_an_inbox_may_be_as_large_as_anybody_can_count(bus: MessageBus) -> None:
    await bus.register("b", capacity=(1 << 63) - 1)
    await bus.send(said(1))
    assert await hear(bus, "b", 1) == [1]


async def test_a_visibility_without_an_end_in_sight_is_kept(place: BusPlace) -> None:
    bus = place.open(visibility_s=1e300)
    await bus.register("b", acknowledge="manual")
    await bus.send(said(1))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    assert await is_empty(bus, "b")
    assert await bus.acknowledge("b", taken.id) == 1


@pytest.mark.parametrize("timeout", [float("nan"), "5", True], ids=repr)
async def test_a_timeout_that_is_no_time_is_refused_by_whatever_waits(bus: MessageBus, timeout: float) -> None:
    await bus.register("a")
    await bus.register("b", capacity=1)
    with pytest.raises(ValueError, match="timeout is"):
        await bus.receive("b", timeout=timeout)
    with pytest.raises(ValueError, match="timeout is"):
        await bus.receive_many("b", 2, timeout=timeout)
    with pytest.raises(ValueError, match="timeout is"):
        await bus.send(said(), timeout=timeout)
    with pytest.raises(ValueError, match="timeout is"):
        await bus.request(said(), timeout=timeout)
    assert await is_empty(bus, "b")


@pytest.mark.parametrize("number", [0, True, 1.5, float("nan"), "3"], ids=repr)
async def test_no_number_of_messages_to_take_is_refused(bus: MessageBus, number: int) -> None:
    await bus.register("b")
    await bus.send(said("still there"))
    with pytest.raises(ValueError, match="max_messages is"):
        await bus.receive_many("b", number, timeout=0)
    assert await hear(bus, "b", 1) == ["still there"]


async def test_send_many_waits_for_room(place: BusPlace) -> None:
    here, there = place.open(), place.open()
    await here.register("b", capacity=3)
    sending = asyncio.create_task(there.send_many(said(number) for number in range(20)))
    assert await hear(here, "b", 20) == list(range(20))
    assert len(set(await asyncio.wait_for(sending, PATIENCE_S))) == 20


async def test_send_many_to_an_inbox_that_rejects_sends_what_fits(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="reject")
    await bus.register("c")
    with pytest.raises(InboxFullError):
        await bus.send_many([*(said(number) for number in range(5)), said("after", to="c")])
    assert await hear(bus, "b", 2) == [0, 1]
    assert await hear(bus, "c", 1) == ["after"]
    assert (await bus.stats()).rejected == 3


async def test_send_many_to_an_inbox_that_drops_the_oldest_leaves_the_last(bus: MessageBus) -> None:
    await bus.register("b", capacity=2, overflow="drop_oldest")
    await bus.send_many(said(number) for number in range(5))
    assert await hear(bus, "b", 2) == [3, 4]
    assert [letter.message.payload for letter in await bus.dead_letters("b")] == [0, 1, 2]
    counts = await bus.stats()
    assert (counts.sent, counts.dropped) == (5, 3)


async def test_a_number_too_long_to_write_fails_alone(place: BusPlace) -> None:
    bus = place.open()
    await bus.register("b")
    sending = bus.send_many([said("before"), said([10**5_000]), said("after")])
    if place.shared:
        with pytest.raises(InvalidMessageError) as caught:
            await sending
        assert caught.value.field == "payload"
        assert await hear(bus, "b", 2) == ["before", "after"]
    else:
        # Handed over, not written.
        await sending
        assert await hear(bus, "b", 3) == ["before", [10**5_000], "after"]
