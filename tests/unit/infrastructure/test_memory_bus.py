"""What the memory bus promises about time and size, under a clock that tests turn."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from application.ports.message_bus import Message, Priority
from domain.errors.bus import InboxFullError, ReceiveTimeoutError
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.stubs.virtual_time import run_in_virtual_time
from tests.virtual_time import pass_time


class WallClock:
    """A time of day that jumps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def _in_virtual_time(story: Coroutine[Any, Any, None]) -> None:
    run_in_virtual_time(story)


def test_a_message_comes_again_when_its_visibility_ends_and_not_before() -> None:
    async def story() -> None:
        async with MemoryMessageBus(visibility_s=30.0) as bus:
            await bus.register("b", acknowledge="manual")
            await bus.send(Message("a", "b", "note"))
            await bus.receive("b")
            with pytest.raises(ReceiveTimeoutError):
                await bus.receive("b", timeout=29.9)
            assert (await bus.receive("b", timeout=0.2)).attempt == 2

    _in_virtual_time(story())


def test_a_redelivered_message_stands_before_later_ones_and_behind_higher_ones() -> None:
    async def story() -> None:
        async with MemoryMessageBus(visibility_s=30.0) as bus:
            await bus.register("b", acknowledge="manual")
            for payload in (1, 2):
                await bus.send(Message("a", "b", "note", payload))
                await bus.receive("b")
                await pass_time(1)
            await bus.send(Message("a", "b", "note", 3))
            await bus.send(Message("a", "b", "note", 0, priority=Priority.HIGH))
            await pass_time(31)
            heard = await bus.receive_many("b", 10)
            assert [(each.payload, each.attempt) for each in heard] == [(0, 1), (1, 2), (2, 2), (3, 1)]

    _in_virtual_time(story())


def test_a_sender_that_waits_longest_is_told_when_its_patience_ends() -> None:
    async def story() -> None:
        async with MemoryMessageBus() as bus:
            await bus.register("b", capacity=1)
            await bus.send(Message("a", "b", "note"))
            began = asyncio.get_running_loop().time()
            with pytest.raises(InboxFullError) as caught:
                await bus.send(Message("a", "b", "note"), timeout=20.0)
            assert asyncio.get_running_loop().time() - began == pytest.approx(20.0)
            assert caught.value.waited_s == 20.0

    _in_virtual_time(story())


def test_a_blocked_sender_of_high_priority_gets_in_first() -> None:
    async def story() -> None:
        async with MemoryMessageBus() as bus:
            await bus.register("b", capacity=1)
            await bus.send(Message("a", "b", "note", "first"))
            waiting = []
            for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
                message = Message("a", "b", "note", priority.name, priority=priority)
                waiting.append(asyncio.create_task(bus.send(message)))
                await asyncio.sleep(0)
            heard = [(await bus.receive("b")).payload for _ in range(4)]
            assert heard == ["first", "HIGH", "NORMAL", "LOW"]
            await asyncio.gather(*waiting)

    _in_virtual_time(story())


async def test_a_clock_that_jumps_changes_neither_order_nor_redelivery() -> None:
    clock = WallClock()
    async with MemoryMessageBus(wall_clock=clock) as bus:
        await bus.register("b", acknowledge="manual")
        for number in range(6):
            clock.now += (-1) ** number * 100_000
            await bus.send(Message("a", "b", "note", number))
        assert [each.payload for each in await bus.receive_many("b", 10)] == list(range(6))
        clock.now += 1e9
        with pytest.raises(ReceiveTimeoutError):
            await bus.receive("b", timeout=0)


async def test_a_message_expires_by_the_time_of_day() -> None:
    clock = WallClock()
    async with MemoryMessageBus(wall_clock=clock) as bus:
        await bus.register("b")
        await bus.send(Message("a", "b", "note", expires_at=clock.now + 10))
        assert await bus.dead_letters() == []
        clock.now += 10
        [letter] = await bus.dead_letters()
        assert (letter.reason, letter.at) == ("expired", clock.now)


async def test_ten_thousand_idle_receivers_wake_for_nothing() -> None:
    async with MemoryMessageBus() as bus:
        woken = 0

        async def idle(name: str) -> None:
            nonlocal woken
            await bus.receive(name)
            woken += 1

        names = [f"idle-{number}" for number in range(10_000)]
        for name in names:
            await bus.register(name)
        waiting = [asyncio.create_task(idle(name)) for name in names]
        await asyncio.sleep(0)
        await bus.register("b")
        await bus.send(Message("a", "b", "note"))
        await bus.receive("b")
        assert woken == 0
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_memory_stays_flat_however_many_messages_pass() -> None:
    async with MemoryMessageBus() as bus:
        await bus.register("b")

        async def pass_on(messages: int) -> int:
            for number in range(messages):
                await bus.send(Message("a", "b", "note", "x" * 100))
                if number % 100 == 99:
                    await bus.receive_many("b", 100)
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            warm = await pass_on(5_000)
            assert await pass_on(30_000) - warm < 200_000
        finally:
            tracemalloc.stop()


async def test_history_lets_go_of_payloads() -> None:
    class Watched(str):
        __slots__ = ()

    living: list[str] = []

    class Told(Watched):
        def __del__(self) -> None:
            living.append("gone")

    async with MemoryMessageBus() as bus:
        await bus.register("b")
        await bus.send(Message("a", "b", "note", Told("payload")))
        await bus.receive("b")
        await bus.history()
        assert living == ["gone"]


async def test_sending_without_waiting_raises_where_sending_would_wait() -> None:
    async with MemoryMessageBus() as bus:
        await bus.register("b", capacity=1)
        message_id = bus.send_nowait(Message("a", "b", "note", "first"))
        with pytest.raises(InboxFullError):
            bus.send_nowait(Message("a", "b", "note", "second"))
        assert (await bus.receive("b")).id == message_id


async def test_a_flood_lets_its_receiver_run() -> None:
    async with MemoryMessageBus() as bus:
        await bus.register("b")
        most = 0

        async def take() -> None:
            nonlocal most
            for number in range(5_000):
                await bus.receive("b")
                if number % 50 == 0:
                    most = max(most, (await bus.stats()).queued["b"])

        taking = asyncio.create_task(take())
        for number in range(5_000):
            await bus.send(Message("a", "b", "note", number))
        await taking
        assert most < 2_000


@pytest.mark.parametrize("module", ["memory_bus", "file_bus"])
def test_a_bus_of_the_standard_library_imports_nothing_else(module: str, repository_root: Path) -> None:
    # Without the folder of installed packages; this one is where our own are.
    code = f"import sys; sys.path.insert(0, {str(repository_root / 'src')!r}); import infrastructure.buses.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
