"""SIGKILL of senders, receivers and both at once in the middle of many messages: what the bus between processes guarantees, counted."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from application.ports.message_bus import BusStats, MessageBus
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.shm_bus import SharedMemoryMessageBus
from tests.patience import eventually_in_loop

_logger = logging.getLogger(__name__)

PATIENCE_S = 300.0
BATCH = 50

CHILD = """
import asyncio, sys
from pathlib import Path
from application.ports.message_bus import Message
from domain.errors.bus import NameTakenError

transport, place, role, total, batch = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
# So small an inbox that neither end is ever far ahead of the other.
limits = {"capacity": 500, "visibility_s": 0.5, "max_attempts": 1_000, "max_payload_bytes": 1_000}
if transport == "file":
    from infrastructure.buses.file_bus import FileMessageBus
    bus = FileMessageBus(Path(place) / "bus", **limits)
else:
    from infrastructure.buses.shm_bus import SharedMemoryMessageBus
    bus = SharedMemoryMessageBus("kills", folder=Path(place), segment_bytes=1 << 28, **limits)

async def send():
    for first in range(int(sys.stdin.readline()), total, batch):
        numbers = range(first, min(first + batch, total))
        await bus.send_many([Message("source", "sink", "n", number, id=f"n-{number}") for number in numbers])
        print(numbers[-1] + 1, flush=True)

async def receive():
    while True:
        try:
            await bus.register("sink", acknowledge=role)
            break
        except NameTakenError:
            await bus.stats()
    print(flush=True)
    while True:
        taken = await bus.receive_many("sink", batch)
        print(*(message.payload for message in taken), flush=True)
        if role == "manual":
            await bus.acknowledge("sink", *(message.id for message in taken))

asyncio.run(send() if role == "send" else receive())
"""


def observer(transport: str, place: Path) -> MessageBus:
    """One more object on the same bus, in this process."""
    if transport == "file":
        return FileMessageBus(place / "bus")
    return SharedMemoryMessageBus("kills", folder=place, segment_bytes=1 << 28)


class Player:
    """A process that plays one part; what it says is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process, hear: Callable[[str], None]) -> None:
        self.process = process
        self._hear = hear
        self._is_killed = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            # What a kill cut off was not said.
            if line.endswith(b"\n"):
                self._hear(line.decode())

    def kill(self) -> None:
        """SIGKILL, once: a second one would take the exit code away from the event loop."""
        if not self._is_killed and self.process.returncode is None:
            self._is_killed = True
            self.process.kill()

    async def end(self) -> None:
        """Wait for its end, and read what it had said."""
        await asyncio.wait_for(self.process.wait(), PATIENCE_S)
        await self._reading


class Play:
    """A sender of `total` numbered messages and a receiver; either may be killed and is then followed by another.

    A sender goes on where the one before was last told that its messages were sent, and gives the same ids again.
    """

    def __init__(self, transport: str, place: Path, total: int, mode: str) -> None:
        self.transport = transport
        self.place = place
        self.total = total
        self.mode = mode
        self.sent = 0
        self.heard: list[int] = []
        self.parts: dict[str, Player] = {}
        self._moved = asyncio.Event()
        self._ready = asyncio.Event()

    async def begin(self, parts: Iterable[str]) -> None:
        for part in sorted(parts):
            role = "send" if part == "sender" else self.mode
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-c", CHILD, self.transport, str(self.place), role, str(self.total), str(BATCH)),
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            self.parts[part] = Player(process, self._hear_sender if part == "sender" else self._hear_receiver)
            if part == "receiver":
                await asyncio.wait_for(self._ready.wait(), PATIENCE_S)
            assert process.stdin is not None
            process.stdin.write(f"{self.sent}\n".encode())

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait while the play goes on."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            self._moved.clear()
            await asyncio.wait_for(self._moved.wait(), deadline - time.monotonic())

    async def kill(self, parts: Iterable[str]) -> None:
        """At the same time, as far as that is possible: nobody sees the other die."""
        for part in parts:
            self.parts[part].kill()
        for part in parts:
            await self.parts[part].end()

    async def finish(self) -> BusStats:
        """Wait until all was sent and nothing is left, and say what was counted."""
        await self.parts["sender"].end()
        assert self.parts["sender"].process.returncode == 0
        bus = observer(self.transport, self.place)

        async def emptied() -> BusStats | None:
            counts = await bus.stats()
            return None if counts.queued["sink"] else counts

        counts = await eventually_in_loop(emptied, patience_s=PATIENCE_S)
        assert counts is not None
        await self.kill(["receiver"])
        await bus.close()
        return counts

    def _hear_sender(self, line: str) -> None:
        self.sent = int(line)
        self._moved.set()

    def _hear_receiver(self, line: str) -> None:
        self._ready.set()
        self.heard += map(int, line.split())
        self._moved.set()


@asynccontextmanager
async def played(transport: str, place: Path, total: int, mode: str) -> AsyncIterator[Play]:
    """Leaves no process behind."""
    play = Play(transport, place, total, mode)
    try:
        yield play
    finally:
        await play.kill(play.parts)


async def killed_now_and_then(play: Play, victims: tuple[str, ...], kills: int) -> BusStats:
    """The whole play, its victims killed so many times, at even distances."""
    await play.begin(["receiver", "sender"])
    for number in range(1, kills + 1):
        goal = play.total * number // (kills + 1)
        if "receiver" in victims:
            await play.until(lambda goal=goal: len(play.heard) >= goal)  # type: ignore[misc]
        else:
            await play.until(lambda goal=goal: play.sent >= goal)  # type: ignore[misc]
        await play.kill(victims)
        await play.begin(victims)
    return await play.finish()


def slack(play: Play, kills: int) -> int:
    """How far off counts may be: those of the file bus by one message for each kill inside a step."""
    return kills if play.transport == "file" else 0


@pytest.mark.parametrize("victims", [("sender",), ("receiver",), ("receiver", "sender")], ids="+".join)
@pytest.mark.parametrize("transport", ["file", "shm"])
async def test_every_message_is_acknowledged_whoever_is_killed(
    transport: str, victims: tuple[str, ...], sized: Callable[[int, int], int], tmp_path: Path
) -> None:
    total, kills = sized(2_000, 100_000), sized(1, 9)
    async with played(transport, tmp_path, total, "manual") as play:
        counts = await killed_now_and_then(play, victims, kills)
    times = Counter(play.heard)
    again = times.total() - total
    _logger.info(
        "%s, %s killed %d times: %d sent, %d heard, %d again; %s",
        transport,
        victims,
        kills,
        total,
        len(times),
        again,
        counts,
    )
    assert sorted(times) == list(range(total))
    assert 0 <= again <= counts.redelivered
    assert abs(counts.sent - total) <= slack(play, kills)
    assert abs(counts.acknowledged - total) <= slack(play, kills)
    assert (counts.dead_letters, counts.dropped, counts.corrupt) == (0, 0, 0)
    if "receiver" not in victims and not counts.redelivered:
        assert play.heard == list(range(total))


@pytest.mark.parametrize("transport", ["file", "shm"])
async def test_a_killed_receiver_that_acknowledges_by_taking_loses_no_more_than_it_had_taken(
    transport: str, sized: Callable[[int, int], int], tmp_path: Path
) -> None:
    total, kills = sized(2_000, 100_000), sized(1, 9)
    async with played(transport, tmp_path, total, "auto") as play:
        counts = await killed_now_and_then(play, ("receiver",), kills)
    lost = set(range(total)) - set(play.heard)
    _logger.info(
        "%s, auto, killed %d times: %d sent, %d heard, %d lost; %s",
        transport,
        kills,
        total,
        len(play.heard),
        len(lost),
        counts,
    )
    assert len(play.heard) == len(set(play.heard))
    assert play.heard == sorted(play.heard)
    assert len(lost) <= kills * BATCH
    assert abs(counts.delivered - total) <= slack(play, kills)
    assert (counts.redelivered, counts.dead_letters, counts.dropped, counts.corrupt) == (0, 0, 0, 0)
