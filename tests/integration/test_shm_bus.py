"""Objects of the shared-memory bus that come and go, wait for each other, and tell what was sent."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from application.ports.message_bus import Message, Priority
from domain.errors.bus import InboxFullError
from tests.integration.shm_buses import assert_sound, bus_in, names_in, numbered
from tests.patience import PATIENCE_S


async def test_the_last_object_to_close_removes_the_segment(tmp_path: Path) -> None:
    one, other = bus_in(tmp_path), bus_in(tmp_path)
    await one.stats()
    await other.stats()
    await one.close()
    assert names_in(tmp_path)
    await other.close()
    assert not names_in(tmp_path)


async def test_a_new_bus_of_a_removed_name_is_empty(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        await bus.send(numbered(1))
    async with bus_in(tmp_path) as bus:
        assert (await bus.stats()).queued == {}


async def test_what_a_closed_owner_had_in_hand_goes_to_its_place_or_is_buried(tmp_path: Path) -> None:
    async with bus_in(tmp_path, max_attempts=2) as bus:
        await bus.stats()
        for attempt in (1, 2):
            async with bus_in(tmp_path, max_attempts=2) as owner:
                await owner.register("sink", acknowledge="manual")
                if attempt == 1:
                    await owner.send_many([numbered(n) for n in range(6)])
                    assert await owner.acknowledge("sink", (await owner.receive("sink")).id) == 1
                taken = await owner.receive_many("sink", 3)
                assert [(each.payload, each.attempt) for each in taken] == [(n, attempt) for n in (1, 2, 3)]
                assert_sound(owner)
        await bus.register("sink", acknowledge="manual")
        assert_sound(bus)
        letters = [(each.message.payload, each.reason, each.attempts) for each in await bus.dead_letters()]
        assert letters == [(n, "attempts", 2) for n in (1, 2, 3)]
        assert [(each.payload, each.attempt) for each in await bus.receive_many("sink", 9)] == [(4, 1), (5, 1)]


async def test_a_sender_waits_for_room_that_another_object_makes(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        await other.register("sink", capacity=2)
        sending = asyncio.create_task(bus.send_many([numbered(n) for n in range(50)]))
        got: list[object] = []
        while len(got) < 50:
            got += [each.payload for each in await other.receive_many("sink", 3, timeout=PATIENCE_S)]
        assert got == list(range(50))
        assert len(await sending) == 50


async def test_ten_thousand_waiting_receivers_all_get_one_broadcast(tmp_path: Path) -> None:
    """More wakes than a FIFO holds: none of them is lost."""
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        names = [f"agent-{n}" for n in range(10_000)]
        for name in names:
            await other.register(name)
        waiting = [asyncio.create_task(other.receive(name, timeout=PATIENCE_S)) for name in names]
        await asyncio.sleep(0)
        assert await bus.broadcast(Message("source", "everybody", "hello")) == 10_000
        assert {each.type for each in await asyncio.gather(*waiting)} == {"hello"}


async def test_one_sender_does_not_overtake_itself_while_it_waits(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus, bus_in(tmp_path) as other:
        await other.register("sink", capacity=1)
        sending = []
        for n in range(10):
            sending.append(asyncio.create_task(bus.send(numbered(n), timeout=PATIENCE_S)))
            await asyncio.sleep(0)
        got = [(await other.receive("sink", timeout=PATIENCE_S)).payload for _ in range(10)]
        await asyncio.gather(*sending)
        assert got == list(range(10))


async def test_a_sender_that_gives_up_lets_the_next_one_in(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=1)
        await bus.send(numbered(0))
        first = asyncio.create_task(bus.send(numbered(1), timeout=PATIENCE_S))
        await asyncio.sleep(0)
        second = asyncio.create_task(bus.send(numbered(2), timeout=PATIENCE_S))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(2)] == [0, 2]
        await second


async def test_a_batch_to_a_group_reaches_no_member_from_itself(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        for name in ("a", "b"):
            await bus.register(name)
            await bus.join(name, "both")
        await bus.send_many([Message(sender, "both", "note", sender) for sender in ("a", "b", "c", "a")])
        assert [each.payload for each in await bus.receive_many("a", 10, timeout=PATIENCE_S)] == ["b", "c"]
        assert [each.payload for each in await bus.receive_many("b", 10, timeout=PATIENCE_S)] == ["a", "c", "a"]


async def test_a_blocked_message_of_higher_priority_gets_in_first(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=1)
        await bus.send(numbered(0))
        sending = []
        for number, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH), start=1):
            message = Message("source", "sink", "number", number, priority)
            sending.append(asyncio.create_task(bus.send(message, timeout=PATIENCE_S)))
            await asyncio.sleep(0)
        assert [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(4)] == [0, 3, 2, 1]
        await asyncio.gather(*sending)


async def test_a_duplicate_to_everybody_is_no_history(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        for name in ("b", "c"):
            await bus.register(name)
            await bus.join(name, "group")
        for _ in range(2):
            await bus.broadcast(Message("a", "", "note", id="same"))
        await bus.send(Message("a", "group", "note", id="same"))
        await bus.send(Message("b", "group", "note", id="news"))
        assert [header.id for header in await bus.history()] == ["same", "news"]


async def test_history_has_the_part_of_a_batch_that_was_new_and_found_room(tmp_path: Path) -> None:
    told: list[str] = []

    def keep(happened: str, message: Message) -> None:
        told.append(f"{happened} {message.id}")

    async with bus_in(tmp_path, keep_payloads=True, tap=keep) as bus:
        await bus.register("sink", capacity=3, overflow="reject")
        bodies: list[Any] = [b"raw", {"n": 1}, float("inf"), None, "x"]
        await bus.send(Message("source", "sink", "note", bodies[1], id="i1"))
        with pytest.raises(InboxFullError):
            await bus.send_many(Message("source", "sink", "note", body, id=f"i{n}") for n, body in enumerate(bodies))
        found = [(header.id, header.payload) for header in await bus.history()]
        assert found == [("i1", {"n": 1}), ("i0", b"raw"), ("i2", float("inf"))]
        assert told == ["sent i1"]


async def test_a_message_refused_by_a_full_inbox_is_counted(tmp_path: Path) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink", capacity=3, overflow="reject")
        with pytest.raises(InboxFullError):
            await bus.send_many([numbered(n) for n in range(5)])
        stats = await bus.stats()
        assert (stats.sent, stats.rejected, stats.queued) == (3, 2, {"sink": 3})
