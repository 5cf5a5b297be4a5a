"""What the bus in a folder does: messages a second one by one and by batches, within a process and between two, and rounds of 128 agents.

python -m benchmarks.bus_file [--repetitions 7] [--folder FOLDER] [--out FILE]

Beside it stands the least that files can do: each message written under one name, renamed to another, read and removed, with no
order, no bounds, no counts and nobody waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.measurement import Contender, alternate, report
from domain.models.message import Message, Payload
from infrastructure.buses.file_bus import FileMessageBus, default_folder
from infrastructure.event_loop import run

MESSAGES = 2_000
BATCH = 100
AGENTS = 128
PROCESSES = 2
PINGS = 300
PAYLOAD: Payload = {"id": 1, "data": "x" * 150}


def message(recipient: str, sender: str = "source") -> Message:
    """One of about 200 bytes."""
    return Message(sender, recipient, "bench", PAYLOAD)


def bare_files(folder: Path) -> Callable[[], Awaitable[object]]:
    """The least: draft, rename, read, remove."""
    content = json.dumps({"sender": "source", "recipient": "sink", "type": "bench", "payload": PAYLOAD}).encode()

    async def once() -> None:
        for number in range(MESSAGES):
            (folder / f"draft-{number}").write_bytes(content)
            (folder / f"draft-{number}").rename(folder / f"{number}")
        for number in range(MESSAGES):
            json.loads((folder / f"{number}").read_bytes())
            (folder / f"{number}").unlink()

    return once


async def one_by_one(bus: FileMessageBus) -> None:
    """`send`, then `receive`, in one process."""
    for _ in range(MESSAGES):
        await bus.send(message("sink"))
    for _ in range(MESSAGES):
        await bus.receive("sink")


async def by_hundreds(bus: FileMessageBus) -> None:
    """`send_many`, then `receive_many`, in one process."""
    batch = [message("sink")] * BATCH
    for _ in range(MESSAGES // BATCH):
        await bus.send_many(batch)
    left = MESSAGES
    while left:
        left -= len(await bus.receive_many("sink", BATCH))


async def acknowledged_by_hundreds(bus: FileMessageBus) -> None:
    """As before, each acknowledged."""
    batch = [message("careful")] * BATCH
    for _ in range(MESSAGES // BATCH):
        await bus.send_many(batch)
    left = MESSAGES
    while left:
        taken = await bus.receive_many("careful", BATCH)
        left -= await bus.acknowledge("careful", *(each.id for each in taken))


async def to_another_process(bus: FileMessageBus) -> None:
    """By batches to an agent of another process, until it says that it has them all."""
    batch = [message("far-sink")] * BATCH
    for _ in range(MESSAGES // BATCH):
        await bus.send_many(batch)
    await bus.receive("near")


async def round_at_home(bus: FileMessageBus) -> None:
    """One broadcast to 128 agents of this process, and an answer of each."""
    await bus.broadcast(message("all", sender="near"))
    for _ in range(AGENTS):
        await bus.receive("near")


async def agent(bus: FileMessageBus, name: str) -> None:
    """Answers whatever comes, as an agent."""
    while True:
        await bus.receive(name)
        await bus.send(Message(name, "near", "answer", PAYLOAD))


async def play(folder: Path, role: str, first: int, last: int) -> None:
    """What another process does."""
    bus = FileMessageBus(folder)
    if role == "agents":
        names = [f"agent-{number}" for number in range(first, last)]
        for name in names:
            await bus.register(name)
        print("ready", flush=True)
        await asyncio.gather(*(agent(bus, name) for name in names))
    await bus.register("far-sink")
    await bus.register("far-echo")
    print("ready", flush=True)

    async def echo() -> None:
        while True:
            await bus.receive("far-echo")
            await bus.send(message("near"))

    echoing = asyncio.create_task(echo())
    while not echoing.done():
        left = MESSAGES
        while left:
            left -= len(await bus.receive_many("far-sink", BATCH))
        await bus.send(message("near", sender="far-sink"))


@asynccontextmanager
async def others(folder: Path, *parts: tuple[str, int, int]) -> AsyncIterator[None]:
    """Processes that play these parts, ready; ended afterwards."""
    module = (sys.executable, "-m", "benchmarks.bus_file", "--folder", str(folder))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = [
        await asyncio.create_subprocess_exec(
            *module, "--play", role, f"{first}", f"{last}", stdout=asyncio.subprocess.PIPE, env=environment
        )
        for role, first, last in parts
    ]
    try:
        for process in started:
            assert process.stdout is not None
            await process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            await process.wait()


async def ping(bus: FileMessageBus) -> dict[str, float]:
    """There and back between two processes, one in flight: half of it, in microseconds."""
    halves = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await bus.send(message("far-echo", sender="near"))
        await bus.receive("near")
        halves.append((time.perf_counter() - began) * 5e5)
    cuts = statistics.quantiles(halves, n=100)
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


async def main(repetitions: int, where: Path, out: Path | None) -> None:
    """Alternate what can be alternated, on fresh folders in `where`."""
    folder = Path(tempfile.mkdtemp(dir=where))
    print(f"load {os.getloadavg()[0]:.2f}, folder on {where}, {MESSAGES} messages of about 200 bytes")
    try:
        (folder / "bare").mkdir()
        async with FileMessageBus(folder / "bus", capacity=100_000) as bus:
            for name in ("sink", "near"):
                await bus.register(name)
            await bus.register("careful", acknowledge="manual")
            async with others(folder / "bus", ("echo", 0, 0)):
                contenders = [
                    Contender("bare files", bare_files(folder / "bare")),
                    Contender("one by one", lambda: one_by_one(bus)),
                    Contender("by hundreds", lambda: by_hundreds(bus)),
                    Contender("by hundreds, acknowledged", lambda: acknowledged_by_hundreds(bus)),
                    Contender("by hundreds to another process", lambda: to_another_process(bus)),
                ]
                await alternate(contenders, repetitions=repetitions)
                report("file bus, send to receive", contenders, agents=MESSAGES, ideal_ms=0, out=out)
                for contender in contenders:
                    wall_ms = contender.median(lambda sample: sample.wall_ms)
                    print(f"{contender.name}: {MESSAGES / wall_ms * 1e3:,.0f} messages a second")
                print("one in flight between two processes, us:", {k: round(v) for k, v in (await ping(bus)).items()})
        await rounds(folder, repetitions, out)
    finally:
        shutil.rmtree(folder)


async def rounds(folder: Path, repetitions: int, out: Path | None) -> None:
    """128 agents, each asked and heard, in this process and in others."""
    share = AGENTS // PROCESSES
    parts = [("agents", number * share, (number + 1) * share) for number in range(PROCESSES)]
    async with FileMessageBus(folder / "home") as home, FileMessageBus(folder / "away") as away:
        await home.register("near")
        await away.register("near")
        for number in range(AGENTS):
            await home.register(f"agent-{number}")
        here = [asyncio.create_task(agent(home, f"agent-{number}")) for number in range(AGENTS)]
        async with others(folder / "away", *parts):
            contenders = [
                Contender("in one process", lambda: round_at_home(home)),
                Contender(f"in {PROCESSES} other processes", lambda: round_at_home(away)),
            ]
            await alternate(contenders, repetitions=repetitions)
            report(f"file bus, round of {AGENTS} agents", contenders, agents=AGENTS, ideal_ms=0, out=out)
        for each in here:
            each.cancel()
        await asyncio.gather(*here, return_exceptions=True)
    print(f"load {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=default_folder().parent)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    parser.add_argument("--play", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.play:
        part, begin, end = arguments.play
        run(play(arguments.folder, part, int(begin), int(end)))
    else:
        run(main(arguments.repetitions, arguments.folder, arguments.out))
