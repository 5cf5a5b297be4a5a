"""Runs: messages that the Redis bus stores as one entry are still single messages to whoever takes, acknowledges, misses or loses them."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import pytest

from application.ports.message_bus import Message, Payload, Priority
from domain.errors.bus import InboxFullError, UnknownAgentError
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.buses.redis_parcels import Packer, Parcel
from infrastructure.buses.redis_records import pieces
from tests.integration.redis_buses import PLACE
from tests.integration.redis_runs import ATTEMPTS, VISIBLE_S, Clock, patient_bus, payloads, run_of
from tests.servers.redis import RedisServer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def bus(redis_url: str, clock: Clock) -> AsyncIterator[RedisMessageBus]:
    async with patient_bus(redis_url, clock) as one:
        yield one


async def test_messages_that_go_the_same_way_are_one_entry(bus: RedisMessageBus, redis_server: RedisServer) -> None:
    await bus.register("a")
    ids = await bus.send_many(run_of(100))
    assert redis_server.command("XLEN", f"{PLACE}s:a:1") == ":1"
    found = await bus.receive_many("a", 100)
    assert [one.id for one in found] == ids
    assert payloads(found) == list(range(100))


async def test_what_differs_in_more_than_number_and_body_is_not_put_together(bus: RedisMessageBus) -> None:
    await bus.register("a")
    different = [
        Message("s", "a", "one", 1),
        Message("t", "a", "one", 2),
        Message("t", "a", "two", 3),
        Message("t", "a", "two", 4, correlation_id="c"),
        Message("t", "a", "two", 5, id="given"),
        Message("t", "a", "two", 6, expires_at=2_000_000.0),
        Message("t", "a", "two", 7),
        Message("t", "a", "two", b"8"),
        Message("t", "a", "two", float("inf")),
    ]
    ids = await bus.send_many(different)
    found = await bus.receive_many("a", 100)
    assert [one.copy(id="") for one in found] == [one.copy(id="") for one in different]
    assert [one.id for one in found] == ids


@pytest.mark.parametrize(
    "payload", [None, 7, "text", b"raw", {"deep": [1, {"er": None}]}, float("-inf"), {"b": b"raw"}, "\ud800"], ids=repr
)
async def test_every_kind_of_payload_comes_out_of_an_opened_run(bus: RedisMessageBus, payload: Payload) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many([Message("s", "a", "x", payload) for _ in range(5)])
    found = [*await bus.receive_many("a", 2), *await bus.receive_many("a", 5)]
    assert payloads(found) == [payload] * 5
    assert await bus.acknowledge("a", *(one.id for one in found)) == 5


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_a_run_is_taken_in_any_portions_and_in_its_order(bus: RedisMessageBus, mode: str) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send_many(run_of(50))
    await bus.send_many(run_of(50, first=50))
    found: list[Message] = []
    for most in (1, 2, 3, 60, 1, 100):
        found += await bus.receive_many("a", most)
    assert payloads(found) == list(range(100))
    assert [one.attempt for one in found] == [1] * 100
    assert (await bus.stats()).queued == {"a": 100 if mode == "manual" else 0}


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_what_is_left_of_a_run_that_a_cancelled_receiver_had_asked_for_goes_back(
    bus: RedisMessageBus, mode: str
) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send_many(run_of(10))
    asked = asyncio.create_task(bus.receive_many("a", 10))
    await asyncio.sleep(0)
    waits = asyncio.create_task(bus.receive_many("a", 3))
    await asyncio.sleep(0)
    asked.cancel()
    found = [*await waits, *await bus.receive_many("a", 10)]
    assert [(one.payload, one.attempt) for one in found] == [(number, 1) for number in range(10)]
    stats = await bus.stats()
    assert (stats.delivered, stats.queued) == (10, {"a": 10 if mode == "manual" else 0})
    if mode == "manual":
        assert await bus.acknowledge("a", *(one.id for one in found)) == 10


@pytest.mark.parametrize("payload", [{"n": 1}, b"raw", float("nan")], ids=repr)
def test_a_piece_is_split_into_two_that_can_be_given_back(payload: Payload) -> None:
    packer = Packer(instance="i", limit=1_000)
    [(parcel, _, ids)] = packer.runs([Message("s", "a", "x", payload) for _ in range(5)])
    assert isinstance(parcel, Parcel)
    record = parcel.data()
    [whole] = pieces(struct.pack(">BHdI", 1, 1, 7.0, len(record)) + record, [])
    for piece, first in zip(whole.split(2), (0, 2), strict=True):
        [again] = pieces(piece.place, [])
        assert again.place == piece.place
        assert repr(again.messages) == repr(piece.messages)
        assert [one.id for one in again.messages] == ids[first : first + len(again.messages)]
        assert struct.unpack_from(">BHd", piece.place) == (1, 1, 7.0 + first)


async def test_a_run_waits_behind_what_is_more_urgent(bus: RedisMessageBus) -> None:
    await bus.register("a")
    await bus.send_many(run_of(5, priority=Priority.LOW))
    assert payloads(await bus.receive_many("a", 2)) == [0, 1]
    await bus.send_many(run_of(2, first=10, priority=Priority.HIGH))
    assert payloads(await bus.receive_many("a", 10)) == [10, 11, 2, 3, 4]


async def test_a_run_is_acknowledged_in_any_portions(bus: RedisMessageBus) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(10))
    ids = [one.id for one in await bus.receive_many("a", 10)]
    assert await bus.acknowledge("a", ids[7], ids[3]) == 2
    assert await bus.acknowledge("a", *ids[:5]) == 4
    assert await bus.acknowledge("a", ids[7], "unknown", ids[9]) == 1
    assert (await bus.stats()).queued == {"a": 3}
    assert await bus.acknowledge("a", *ids) == 3
    assert (await bus.stats()).acknowledged == 10


async def test_a_run_that_is_acknowledged_twice_is_acknowledged_once(bus: RedisMessageBus) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(10))
    ids = [one.id for one in await bus.receive_many("a", 10)]
    assert await bus.acknowledge("a", *ids, *ids) == 10
    assert await bus.acknowledge("a", *ids) == 0
    assert (await bus.stats()).queued == {"a": 0}


async def test_whoever_did_not_take_a_run_acknowledges_its_messages_too(bus: RedisMessageBus, redis_url: str) -> None:
    first = RedisMessageBus(redis_url)
    await first.register("a", acknowledge="manual")
    await bus.send_many(run_of(10))
    ids = [one.id for one in await first.receive_many("a", 10)]
    await first.close()
    await bus.register("a", acknowledge="manual")
    assert await bus.acknowledge("a", *ids[2:6]) == 4
    again = await bus.receive_many("a", 10)
    assert [(one.payload, one.attempt) for one in again] == [(at, 2) for at in (0, 1, 6, 7, 8, 9)]


async def test_of_a_run_only_what_was_not_acknowledged_comes_again_and_dies(bus: RedisMessageBus, clock: Clock) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(6))
    first = await bus.receive_many("a", 6)
    await bus.acknowledge("a", *(one.id for one in first[::2]))
    clock.now += VISIBLE_S
    second = await bus.receive_many("a", 2)
    assert [(one.payload, one.attempt) for one in second] == [(1, 2), (3, 2)]
    assert [(one.payload, one.attempt) for one in await bus.receive_many("a", 9)] == [(5, 2)]
    for attempt in range(3, ATTEMPTS + 1):
        clock.now += VISIBLE_S
        assert [one.attempt for one in await bus.receive_many("a", 9)] == [attempt] * 3
    clock.now += VISIBLE_S
    assert [(one.message.payload, one.attempts) for one in await bus.dead_letters()] == [
        (number, ATTEMPTS) for number in (1, 3, 5)
    ]
    assert (await bus.stats()).queued == {"a": 0}


async def test_a_whole_run_comes_again_and_may_be_acknowledged_late(bus: RedisMessageBus, clock: Clock) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(4))
    first = await bus.receive_many("a", 4)
    clock.now += VISIBLE_S
    again = await bus.receive_many("a", 4)
    assert [(one.id, one.attempt) for one in again] == [(one.id, 2) for one in first]
    assert await bus.acknowledge("a", *(one.id for one in first)) == 4


@pytest.mark.parametrize("overflow", ["block", "reject"])
async def test_of_a_run_as_much_is_sent_as_there_is_room_for(bus: RedisMessageBus, overflow: str) -> None:
    await bus.register("a", capacity=7, overflow=overflow)
    await bus.send_many(run_of(4))
    sending = asyncio.create_task(bus.send_many(run_of(6, first=4)))
    if overflow == "reject":
        with pytest.raises(InboxFullError) as caught:
            await sending
        assert caught.value.capacity == 7
        assert ((await bus.stats()).sent, (await bus.stats()).rejected) == (7, 3)
        assert payloads(await bus.receive_many("a", 10)) == list(range(7))
    else:
        found: list[Message] = []
        while len(found) < 10:
            found += await bus.receive_many("a", 2)
        assert payloads(found) == list(range(10))
        assert [one.id for one in found[4:]] == await sending


async def test_a_run_that_waits_for_room_in_one_inbox_holds_up_no_other(bus: RedisMessageBus) -> None:
    await bus.register("a", capacity=2)
    await bus.register("b")
    sending = asyncio.create_task(bus.send_many([*run_of(3), *run_of(3, to="b")]))
    assert payloads(await bus.receive_many("b", 3)) == [0, 1, 2]
    assert not sending.done()
    assert payloads([*await bus.receive_many("a", 2), *await bus.receive_many("a", 2)]) == [0, 1, 2]
    await sending


async def test_what_is_left_of_a_run_when_its_inbox_is_closed_was_not_sent(bus: RedisMessageBus) -> None:
    await bus.register("a", capacity=2)
    sending = asyncio.create_task(bus.send_many(run_of(5)))
    while (await bus.stats()).sent < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await bus.unregister("a")
    with pytest.raises(UnknownAgentError):
        await sending
    letters = await bus.dead_letters("a")
    assert sorted(payloads([one.message for one in letters])) == list(range(5))
    assert {str(one.reason) for one in letters} == {"unregistered"}
    assert [header.payload for header in await bus.history()] == [None, None]


async def test_the_oldest_of_a_run_are_dropped_one_by_one(bus: RedisMessageBus) -> None:
    for name, mode in (("a", "auto"), ("m", "manual")):
        await bus.register(name, capacity=5, overflow="drop_oldest", acknowledge=mode)
        await bus.send_many(run_of(5, to=name))
        await bus.send_many(run_of(3, first=5, to=name))
        assert payloads([one.message for one in await bus.dead_letters(name)]) == [0, 1, 2]
        assert payloads(await bus.receive_many(name, 10)) == [3, 4, 5, 6, 7]
    assert (await bus.stats()).dropped == 6


async def test_a_group_gets_a_run_and_each_member_what_it_has_room_for(bus: RedisMessageBus) -> None:
    await bus.register("a")
    await bus.register("b", capacity=2, overflow="reject")
    for name in ("a", "b"):
        await bus.join(name, "group")
    await bus.send_many(run_of(4, to="group"))
    assert payloads(await bus.receive_many("a", 9)) == [0, 1, 2, 3]
    assert payloads(await bus.receive_many("b", 9)) == [0, 1]
    assert payloads([one.message for one in await bus.dead_letters("b")]) == [2, 3]
    stats = await bus.stats()
    assert (stats.sent, stats.rejected) == (6, 2)


async def test_each_message_of_a_run_to_nobody_is_a_dead_letter(bus: RedisMessageBus) -> None:
    with pytest.raises(UnknownAgentError):
        await bus.send_many(run_of(3, to="ghost"))
    assert payloads([one.message for one in await bus.dead_letters("ghost")]) == [0, 1, 2]


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_an_inbox_that_is_closed_tells_of_each_message_in_order(bus: RedisMessageBus, mode: str) -> None:
    await bus.register("a", acknowledge=mode)
    await bus.send_many(run_of(6))
    await bus.send_many(run_of(3, first=6))
    first = await bus.receive_many("a", 2)
    await bus.unregister("a")
    letters = await bus.dead_letters("a")
    left = list(range(9)) if mode == "manual" else list(range(2, 9))
    assert payloads([one.message for one in letters]) == left
    assert [one.attempts for one in letters] == ([1, 1] if mode == "manual" else []) + [0] * 7
    assert len({one.message.id for one in letters} | {one.id for one in first}) == 9


async def test_an_agent_that_acknowledges_by_hand_from_now_on_loses_nothing_of_an_opened_run(
    bus: RedisMessageBus, redis_url: str, clock: Clock
) -> None:
    first = RedisMessageBus(redis_url, wall_clock=clock)
    await first.register("a")
    await bus.send_many(run_of(4))
    await first.receive("a")
    await first.close()
    await bus.register("a", acknowledge="manual")
    assert payloads(await bus.receive_many("a", 4)) == [1, 2, 3]
    clock.now += VISIBLE_S
    again = await bus.receive_many("a", 4)
    assert [(one.payload, one.attempt) for one in again] == [(1, 2), (2, 2), (3, 2)]
    assert await bus.acknowledge("a", *(one.id for one in again)) == 3


async def test_an_inbox_whose_record_was_deleted_has_its_opened_run_back(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many(run_of(4))
    await bus.send_many(run_of(4, first=4))
    assert payloads(await bus.receive_many("a", 1)) == [0]
    redis_server.command("DEL", f"{PLACE}a:a")
    found = await bus.receive_many("a", 9)
    assert payloads(found) == list(range(8))
    assert await bus.acknowledge("a", *(one.id for one in found)) == 8
    await bus.send_many(run_of(2, first=8))
    assert payloads(await bus.receive_many("a", 9)) == [8, 9]
