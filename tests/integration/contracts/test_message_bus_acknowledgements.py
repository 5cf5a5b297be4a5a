"""What the message bus promises, held against every transport: that what is not acknowledged comes again."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.message_bus import Message, MessageBus, Payload, Priority
from domain.errors.bus import ReceiveTimeoutError
from tests.integration.contracts.bus_talk import hear, is_empty, letters_of, said
from tests.integration.contracts.buses import PATIENCE_S, BusPlace

# So little that it is over by the next call.
_AT_ONCE_S = 1e-6


async def test_what_is_acknowledged_does_not_come_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05)
    await bus.register("b", acknowledge="manual")
    await bus.send(said())
    taken = await bus.receive("b", timeout=PATIENCE_S)
    assert await bus.acknowledge("b", taken.id) == 1
    with pytest.raises(ReceiveTimeoutError):
        await bus.receive("b", timeout=0.15)
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_several_are_acknowledged_at_once_and_unknown_ones_are_not_counted(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    ids = await bus.send_many(said(number) for number in range(3))
    await hear(bus, "b", 3)
    assert await bus.acknowledge("b", *ids, "unknown", ids[0]) == 3
    assert await bus.acknowledge("b", *ids) == 0
    assert (await bus.stats()).acknowledged == 3


async def test_what_was_not_yet_taken_cannot_be_acknowledged(bus: MessageBus) -> None:
    await bus.register("b", acknowledge="manual")
    message_id = await bus.send(said("still there"))
    assert await bus.acknowledge("b", message_id) == 0
    assert await hear(bus, "b", 1) == ["still there"]


async def test_what_is_not_acknowledged_in_time_comes_again_with_the_next_attempt(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05)
    await bus.register("b", acknowledge="manual")
    message_id = await bus.send(said("again", priority=Priority.HIGH))
    heard = [await bus.receive("b", timeout=PATIENCE_S) for _ in range(3)]
    assert [(each.id, each.payload, each.priority, each.attempt) for each in heard] == [
        (message_id, "again", Priority.HIGH, attempt) for attempt in (1, 2, 3)
    ]
    counts = await bus.stats()
    assert (counts.sent, counts.delivered, counts.redelivered) == (1, 1, 2)


async def test_a_redelivered_message_can_be_acknowledged(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.1, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    await bus.send(said())
    await hear(bus, "b", 1)
    again = await bus.receive("b", timeout=PATIENCE_S)
    while await bus.acknowledge("b", again.id) != 1:
        again = await bus.receive("b", timeout=PATIENCE_S)
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_messages_that_come_again_come_in_the_order_in_which_they_were_sent(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    await bus.send_many(said(number) for number in range(3))
    heard: list[Message] = []
    while sum(each.attempt == 2 for each in heard) < 3:
        heard.append(await bus.receive("b", timeout=PATIENCE_S))
    assert [each.payload for each in heard if each.attempt == 2] == [0, 1, 2]


async def test_after_the_last_attempt_a_message_is_dead(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02, max_attempts=3)
    await bus.register("b", acknowledge="manual")
    await bus.send(said("poison"))
    attempts = [(await bus.receive("b", timeout=PATIENCE_S)).attempt for _ in range(3)]
    assert attempts == [1, 2, 3]
    [letter] = await letters_of(bus, 1, "b")
    assert (letter.message.payload, letter.reason, letter.attempts) == ("poison", "attempts", 3)
    assert await is_empty(bus, "b")
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_a_dead_message_makes_room(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02, max_attempts=1)
    await bus.register("b", capacity=1, acknowledge="manual")
    await bus.send(said("poison"))
    await hear(bus, "b", 1)
    await bus.send(said("next"), timeout=PATIENCE_S)
    assert await hear(bus, "b", 1) == ["next"]


async def test_what_a_gone_owner_had_in_hand_comes_first_to_the_next(place: BusPlace) -> None:
    watching = place.open()
    await watching.stats()
    owner = place.open()
    await owner.register("b", acknowledge="manual")
    await watching.send_many(said(number) for number in range(4))
    await hear(owner, "b", 2)
    if place.shared:
        await owner.close()
        await watching.register("b", acknowledge="manual")
        heard = [await watching.receive("b", timeout=0) for _ in range(4)]
        assert [(each.payload, each.attempt) for each in heard] == [(0, 2), (1, 2), (2, 1), (3, 1)]
    else:
        assert await hear(owner, "b", 2) == [2, 3]


async def test_in_auto_mode_nothing_comes_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.02)
    await bus.register("b")
    await bus.send(said())
    await hear(bus, "b", 1)
    with pytest.raises(ReceiveTimeoutError):
        await bus.receive("b", timeout=0.08)
    counts = await bus.stats()
    assert (counts.delivered, counts.acknowledged, counts.redelivered) == (1, 1, 0)


async def test_in_auto_mode_there_is_nothing_to_acknowledge(bus: MessageBus) -> None:
    await bus.register("b")
    message_id = await bus.send(said())
    await hear(bus, "b", 1)
    assert await bus.acknowledge("b", message_id) == 0


async def test_messages_taken_together_come_again_together_and_end_together(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05, max_attempts=2)
    await bus.register("b", acknowledge="manual")
    await bus.send_many(said(number, priority=Priority(number % 3)) for number in range(9))
    order = [number for priority in range(3) for number in range(priority, 9, 3)]
    for attempt in (1, 2):
        heard: list[Message] = []
        while len(heard) < 9:
            heard += await bus.receive_many("b", 9, timeout=PATIENCE_S)
        assert [(each.payload, each.attempt) for each in heard] == [(number, attempt) for number in order]
    letters = await letters_of(bus, 9, "b")
    assert sorted(str(letter.message.payload) for letter in letters) == [str(number) for number in range(9)]
    assert {(letter.reason, letter.attempts) for letter in letters} == {("attempts", 2)}
    assert (await bus.stats()).queued.get("b", 0) == 0


async def test_acknowledging_some_lets_only_the_others_come_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=0.05, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    ids = await bus.send_many(said(number) for number in range(6))
    taken = await bus.receive_many("b", 6, timeout=PATIENCE_S)
    while len(taken) < 6:
        taken += await bus.receive_many("b", 6, timeout=PATIENCE_S)
    assert await bus.acknowledge("b", *ids[::2]) == 3
    again: set[Payload] = set()
    while len(again) < 3:
        again |= {each.payload for each in await bus.receive_many("b", 6, timeout=PATIENCE_S)}
    assert again == {1, 3, 5}


async def test_what_is_acknowledged_late_counts_and_does_not_come_again(place: BusPlace) -> None:
    bus = place.open(visibility_s=_AT_ONCE_S)
    await bus.register("b", acknowledge="manual")
    await bus.send(said())
    taken = await bus.receive("b", timeout=PATIENCE_S)
    await _be_overdue(bus)
    assert await bus.acknowledge("b", taken.id) == 1
    assert await bus.acknowledge("b", taken.id) == 0
    assert await is_empty(bus, "b")
    counts = await bus.stats()
    assert (counts.acknowledged, counts.redelivered, counts.queued.get("b", 0)) == (1, 0, 0)
    assert await bus.dead_letters() == []


async def test_what_was_delivered_again_is_acknowledged_once(place: BusPlace) -> None:
    bus = place.open(visibility_s=_AT_ONCE_S, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    await bus.send(said())
    first = await bus.receive("b", timeout=PATIENCE_S)
    await _be_overdue(bus)
    again = await bus.receive("b", timeout=PATIENCE_S)
    assert (again.id, again.attempt) == (first.id, 2)
    assert await bus.acknowledge("b", first.id, again.id) == 1
    assert await is_empty(bus, "b")


async def test_late_acknowledgements_among_many_leave_the_rest_in_order(place: BusPlace) -> None:
    bus = place.open(visibility_s=_AT_ONCE_S, max_attempts=1_000)
    await bus.register("b", acknowledge="manual")
    ids = await bus.send_many(said(number, priority=Priority(number % 3)) for number in range(12))
    order = [number for priority in range(3) for number in range(priority, 12, 3)]
    taken: dict[Payload, Message] = {}
    while len(taken) < 12:
        taken |= {each.payload: each for each in await bus.receive_many("b", 12, timeout=PATIENCE_S)}
    await _be_overdue(bus)
    done = {1, 4, 5, 6, 11}
    assert await bus.acknowledge("b", *(ids[number] for number in sorted(done, reverse=True)), "unknown") == 5
    left = [number for number in order if number not in done]
    assert (await bus.stats()).queued == {"b": len(left)}
    assert [each.payload for each in await bus.receive_many("b", 12, timeout=PATIENCE_S)] == left


async def test_a_late_acknowledgement_makes_room(place: BusPlace) -> None:
    bus = place.open(visibility_s=_AT_ONCE_S, max_attempts=1_000)
    await bus.register("b", capacity=1, overflow="reject", acknowledge="manual")
    await bus.send(said("first"))
    taken = await bus.receive("b", timeout=PATIENCE_S)
    await _be_overdue(bus)
    assert await bus.acknowledge("b", taken.id) == 1
    await bus.send(said("second"))
    assert (await bus.receive("b", timeout=PATIENCE_S)).payload == "second"


@pytest.mark.parametrize("together", [1, 3])
async def test_after_its_last_attempt_nothing_is_acknowledged_late(place: BusPlace, together: int) -> None:
    bus = place.open(visibility_s=_AT_ONCE_S, max_attempts=1)
    await bus.register("b", acknowledge="manual")
    ids = await bus.send_many(said(number) for number in range(together))
    await bus.receive_many("b", together, timeout=PATIENCE_S)
    await _be_overdue(bus)
    assert await bus.acknowledge("b", *ids) == 0
    assert [(each.reason, each.attempts) for each in await bus.dead_letters("b")] == [("attempts", 1)] * together
    counts = await bus.stats()
    assert (counts.acknowledged, counts.queued.get("b", 0)) == (0, 0)


async def _be_overdue(bus: MessageBus) -> None:
    """Let whatever time `_AT_ONCE_S` takes pass, on every clock, and the loop act on it."""
    for _ in range(20):
        await asyncio.sleep(0)
        await bus.history()
