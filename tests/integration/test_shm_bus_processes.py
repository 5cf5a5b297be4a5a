"""The shared-memory bus between processes: what a SIGKILL leaves behind, and requests that another one answers."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from application.ports.message_bus import Message
from domain.errors.bus import NameTakenError
from infrastructure.buses.shm_layout import Head
from infrastructure.buses.shm_segment import Segment
from tests.integration.shm_buses import assert_sound, bus_in, numbered
from tests.patience import PATIENCE_S


class Other:
    """A process that has nothing of this one but what it is given: forked from a server that has imported this module, once."""

    def __init__(self, role: Callable[..., None], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=role, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    async def says(self) -> Any:
        """What it says next. Raises `EOFError` once it is dead."""
        assert await asyncio.to_thread(self._connection.poll, PATIENCE_S), "the other process says nothing"
        return self._connection.recv()

    async def is_dead(self) -> None:
        """Wait for its death."""
        await asyncio.to_thread(self._process.join, PATIENCE_S)
        assert self._process.exitcode == -signal.SIGKILL

    async def is_killed(self) -> None:
        """SIGKILL."""
        self._process.kill()
        await self.is_dead()

    def end(self) -> None:
        """Leave nothing behind."""
        self._process.kill()
        self._process.join(PATIENCE_S)
        self._process.close()
        self._connection.close()


Start = Callable[..., Other]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `role(connection, *arguments)` in a process of its own."""
    others: list[Other] = []

    def begin(role: Callable[..., None], *arguments: Any) -> Other:
        others.append(Other(role, *arguments))
        return others[-1]

    yield begin
    for other in others:
        other.end()


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold_a_name(connection: Connection, folder: Path) -> None:
    """Registers, fills the inbox, says so, and goes on living."""

    async def act() -> None:
        bus = bus_in(folder)
        await bus.register("sink")
        await bus.send_many([numbered(n) for n in range(5)])
        connection.send(os.getpid())
        await asyncio.Event().wait()

    asyncio.run(act())


def die_half_way(connection: Connection, folder: Path) -> None:
    """Dies inside a section, with the lock held and half of a change made."""

    async def act() -> None:
        bus = bus_in(folder)
        await bus.stats()
        post = bus._opened()
        connection.send(os.getpid())
        with post.segment:
            post.segment.add(Head.SENT, 1_000)
            post.segment.set(Head.AGENTS, 0)
            kill_self()

    asyncio.run(act())


def flood(connection: Connection, folder: Path, total: int) -> None:
    """Sends numbers until it is killed or done."""

    async def act() -> None:
        async with bus_in(folder) as bus:
            connection.send(os.getpid())
            for n in range(0, total, 20):
                await bus.send_many([numbered(each) for each in range(n, n + 20)])
            connection.send("done")

    asyncio.run(act())


def answer_all(connection: Connection, folder: Path) -> None:
    """Replies to every request with twice its payload."""

    async def act() -> None:
        async with bus_in(folder) as bus:
            await bus.register("doubler")
            connection.send(os.getpid())
            while True:
                request = await bus.receive("doubler")
                assert isinstance(request.payload, int)
                await bus.reply(request, request.payload * 2)

    asyncio.run(act())


def die_at_every_write(connection: Connection, folder: Path, task: str) -> None:
    """Forks one child after the other, the k-th killed at its k-th write to the journal, until one gets through."""
    steps = 0
    while True:
        child = os.fork()
        if not child:
            with suppress(BaseException):
                asyncio.run(_killed_at(folder, task, steps))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        steps += 1
    connection.send(steps)


async def _killed_at(folder: Path, task: str, step: int) -> None:
    bus = bus_in(folder, visibility_s=0.000_1, max_attempts=1_000_000)
    bus._opened()
    left = step
    write = Segment.set
    if task == "take":
        await bus.register("sink", acknowledge="manual")
    if task == "come and go":
        # What the one before left behind, so that each has the same to do.
        await bus.register("agent")
        await bus.unregister("agent")

    def write_or_die(segment: Segment, place: int, value: int) -> None:
        nonlocal left
        if not left:
            kill_self()
        left -= 1
        write(segment, place, value)

    Segment.set = write_or_die  # type: ignore[method-assign, assignment]
    if task == "send":
        await bus.send_many([Message("source", "sink", "number", [step, n], id=f"{step}-{n}") for n in range(3)])
    elif task == "take":
        for message in await bus.receive_many("sink", 3):
            await bus.acknowledge("sink", message.id)
    else:
        await bus.register("agent")
        await bus.join("agent", "all")
        await bus.send(Message("source", "all", "hello"))
        await bus.unregister("agent")


async def test_what_is_queued_outlives_a_crash_of_every_process(tmp_path: Path, start: Start) -> None:
    holder = start(hold_a_name, tmp_path)
    await holder.says()
    await holder.is_killed()
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        assert [each.payload for each in await bus.receive_many("sink", 10)] == [0, 1, 2, 3, 4]


async def test_a_name_is_taken_while_its_process_lives_and_free_when_it_is_killed(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        holder = start(hold_a_name, tmp_path)
        await holder.says()
        with pytest.raises(NameTakenError):
            await bus.register("sink")
        await holder.is_killed()
        await bus.register("sink")


async def test_a_process_killed_with_the_lock_leaves_no_lock_and_no_half_step(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        dying = start(die_half_way, tmp_path)
        await dying.says()
        await dying.is_dead()
        await bus.send(numbered(1))
        stats = await bus.stats()
        assert (stats.sent, stats.queued) == (1, {"sink": 1})


async def test_a_batch_killed_at_any_write_is_sent_as_a_whole_or_not_at_all(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        steps = await start(die_at_every_write, tmp_path, "send").says()
        assert steps >= 15
        assert_sound(bus)
        found: dict[int, list[int]] = {}
        sent = (await bus.stats()).sent
        for message in await bus.receive_many("sink", 10_000):
            assert isinstance(message.payload, list)
            step, number = message.payload
            found.setdefault(step, []).append(number)  # type: ignore[arg-type]
        assert all(numbers == [0, 1, 2] for numbers in found.values())
        assert sent == 3 * len(found)
        assert steps in found


async def test_a_receiver_killed_at_any_write_loses_no_message(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path, visibility_s=0.000_1, max_attempts=1_000_000) as bus:
        await bus.stats()
        async with bus_in(tmp_path) as owner:
            await owner.register("sink", acknowledge="manual")
        await bus.send_many([numbered(n) for n in range(500)])
        assert await start(die_at_every_write, tmp_path, "take").says() >= 15
        assert_sound(bus)
        stats = await bus.stats()
        assert stats.acknowledged + stats.queued["sink"] == 500
        assert stats.dead_letters == 0


async def test_an_agent_killed_at_any_write_of_its_comings_and_goings_leaves_the_rest_whole(
    tmp_path: Path, start: Start
) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        await bus.join("sink", "all")
        assert await start(die_at_every_write, tmp_path, "come and go").says() >= 30
        assert_sound(bus)
        await bus.send(Message("source", "all", "hello"))
        got = await bus.receive_many("sink", 10_000)
        assert got[-1].recipient == "all"


async def test_a_killed_sender_leaves_what_it_sent_without_a_gap(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("sink")
        sender = start(flood, tmp_path, 100_000)
        await sender.says()
        got: list[object] = []
        while len(got) < 1_000:
            got += [each.payload for each in await bus.receive_many("sink", 100, timeout=PATIENCE_S)]
        await sender.is_killed()
        while (await bus.stats()).queued["sink"]:
            got += [each.payload for each in await bus.receive_many("sink", 1_000)]
        assert got == list(range(len(got)))
        assert (await bus.stats()).sent == len(got)


async def test_requests_are_answered_by_another_process_in_any_number(tmp_path: Path, start: Start) -> None:
    async with bus_in(tmp_path) as bus:
        await bus.register("asker")
        await start(answer_all, tmp_path).says()
        answers = await asyncio.gather(
            *(bus.request(Message("asker", "doubler", "double", n), timeout=PATIENCE_S) for n in range(200))
        )
        assert [each.payload for each in answers] == [2 * n for n in range(200)]
