"""What a killed process leaves in the folder of the bus: its names free, its messages whole, and nobody held up."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.errors.bus import BusUnavailableError, NameTakenError
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.file_folder import BusFolder
from tests.integration.file_buses import files, message, opened_below
from tests.patience import PATIENCE_S

CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from application.ports.message_bus import Message
from infrastructure.buses.file_bus import FileMessageBus

async def main(folder, role, count):
    bus = FileMessageBus(Path(folder), visibility_s=float(sys.argv[4]))
    if role == "hold":
        await bus.register("held")
        print("ready", flush=True)
        await asyncio.Event().wait()
    if role == "fork":
        await bus.register("held")
        child = os.fork()
        if child == 0:
            os.close(1)
            signal.pause()
        print(child, flush=True)
        await asyncio.Event().wait()
    if role == "send":
        sent = 0
        while sent < count:
            await bus.send(Message("child", "sink", "n", sent))
            sent += 1
            print(sent, flush=True)
    if role == "receive":
        await bus.register("worker", acknowledge="manual")
        print("ready", flush=True)
        while True:
            message = await bus.receive("worker")
            print(message.payload, flush=True)
            await bus.acknowledge("worker", message.id)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    async with opened_below(tmp_path) as another:
        yield another


@asynccontextmanager
async def child(
    folder: Path, role: str, *, count: int = 0, visibility_s: float = 30.0
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process on the folder; killed at the end."""
    source = str(Path(__file__).parents[2] / "src")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(folder),
        role,
        str(count),
        str(visibility_s),
        env={**os.environ, "PYTHONPATH": source},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process) -> str:
    """The next line that it printed."""
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)).decode().strip()


async def told(process: asyncio.subprocess.Process) -> list[str]:
    """All whole lines that are left after its end."""
    assert process.stdout is not None
    text = (await asyncio.wait_for(process.stdout.read(), PATIENCE_S)).decode()
    return text.split("\n")[:-1]


async def test_the_name_of_a_killed_process_is_taken_over_with_its_inbox(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    async with child(tmp_path / "bus", "hold") as holder:
        assert await line(holder) == "ready"
        with pytest.raises(NameTakenError):
            await bus.register("held")
        await bus.send(message("kept", to="held"))
        holder.kill()
        await holder.wait()
        await bus.register("held")
    assert (await bus.receive("held", timeout=PATIENCE_S)).payload == "kept"


async def test_a_child_that_a_killed_process_had_forked_keeps_no_name(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    async with child(tmp_path / "bus", "fork") as parent:
        orphan = int(await line(parent))
        try:
            with pytest.raises(NameTakenError):
                await bus.register("held")
            parent.kill()
            await parent.wait()
            await bus.register("held")
        finally:
            os.kill(orphan, signal.SIGKILL)


async def test_whatever_a_killed_sender_was_told_is_sent_arrives_once_and_in_order(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened(capacity=100_000)
    await bus.register("sink")
    async with child(tmp_path / "bus", "send", count=100_000) as sender:
        for _ in range(200):
            await line(sender)
        sender.send_signal(signal.SIGKILL)
        await sender.wait()
        rest = await told(sender)
    acknowledged = 200 + len(rest)
    arrived = [each.payload for each in await bus.receive_many("sink", 100_000, timeout=PATIENCE_S)]
    assert arrived == list(range(len(arrived)))
    assert acknowledged <= len(arrived) <= acknowledged + 1
    stats = await bus.stats()
    assert stats.queued == {"sink": 0}
    assert stats.corrupt == 0


async def test_a_killed_receiver_loses_nothing_that_it_did_not_acknowledge(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened(visibility_s=0.05, max_attempts=100)
    await bus.register("sink")
    async with child(tmp_path / "bus", "receive", visibility_s=0.05) as receiver:
        assert await line(receiver) == "ready"
        await bus.send_many([message(n, to="worker") for n in range(2_000)])
        for _ in range(100):
            await line(receiver)
        receiver.send_signal(signal.SIGKILL)
        await receiver.wait()
        seen = Counter(range(100))
        seen.update(int(each) for each in await told(receiver))
    await bus.register("worker", acknowledge="manual")
    while sum((await bus.stats()).queued.values()):
        for each in await bus.receive_many("worker", 100, timeout=PATIENCE_S):
            assert isinstance(each.payload, int)
            seen[each.payload] += 1
            assert await bus.acknowledge("worker", each.id) in (0, 1)
    assert set(seen) == set(range(2_000))


async def test_a_process_killed_in_the_middle_of_a_step_holds_nobody_up(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await bus.send(message(1))

    def broken(self: BusFolder, source: tuple[str, str], target: tuple[str, str]) -> None:
        os.rename(source[1], target[1], src_dir_fd=self.fd(source[0]), dst_dir_fd=self.fd(target[0]))
        raise OSError(errno.EIO, "it ends here")

    with monkeypatch.context() as patch:
        # The file is where it belongs, and nothing is counted: what a kill between the two leaves behind.
        patch.setattr(BusFolder, "move", broken)
        with pytest.raises(BusUnavailableError):
            await other.send(message(2))
    assert len(files(tmp_path)) == 2
    assert (await other.stats()).queued == {"sink": 1}
    await other.send(message(3))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]
    assert (await bus.stats()).corrupt == 0
