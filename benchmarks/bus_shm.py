"""The shared-memory bus between two processes, beside a pipe with pickles and an asyncio.Queue in one process.

    python -m benchmarks.bus_shm [--messages 100000] [--repetitions 5]

Rates count from the first send to the last receive; every message is made, sent, received and looked at. The contenders take
turns, so that what disturbs one disturbs all; medians are printed, with the load of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from uuid import uuid4

from application.ports.message_bus import Message
from infrastructure.buses.shm_bus import SharedMemoryMessageBus
from infrastructure.event_loop import run

BATCH = 100
AGENTS = 128
ROUND_TRIPS = 2_000


def made(start: int, count: int) -> list[Message]:
    """Messages as a caller makes them."""
    return [Message("source", "sink", "number", {"n": number}) for number in range(start, start + count)]


async def receive_batches(connection: Connection, name: str) -> None:
    """The receiving half over the bus: for each number told, receive so many and tell when, and the CPU it took."""
    async with SharedMemoryMessageBus(name) as bus:
        await bus.register("sink")
        connection.send("ready")
        while total := await asyncio.to_thread(connection.recv):
            cpu, got = time.process_time(), 0
            while got < total:
                got += len(await bus.receive_many("sink", BATCH))
            connection.send((time.monotonic(), time.process_time() - cpu))


async def receive_pickles(connection: Connection, name: str) -> None:
    """The same over a pipe."""
    connection.send(name)
    while total := connection.recv():
        cpu, got = time.process_time(), 0
        while got < total:
            got += len(connection.recv())
        connection.send((time.monotonic(), time.process_time() - cpu))


async def answer(connection: Connection, name: str) -> None:
    """128 agents that answer the coordinator of each round, and one that replies to requests."""
    async with SharedMemoryMessageBus(name) as bus:

        async def agent(own: str) -> None:
            while True:
                asked = await bus.receive(own)
                await bus.send(Message(own, asked.sender, "answer", asked.payload))

        async def replier() -> None:
            while True:
                await bus.reply(await bus.receive("replier"), 1)

        names = [f"agent-{number}" for number in range(AGENTS)]
        for own in names:
            await bus.register(own)
            await bus.join(own, "agents")
        await bus.register("replier")
        tasks = [asyncio.create_task(each) for each in (*map(agent, names), replier())]
        connection.send("ready")
        await asyncio.to_thread(connection.recv)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def begin(role: Callable[[Connection, str], Awaitable[None]], connection: Connection, name: str) -> None:
    """Run a role in a process of its own."""
    run(role(connection, name))  # type: ignore[arg-type]


class Peer:
    """Another process in its role."""

    def __init__(self, role: Callable[[Connection, str], Awaitable[None]], name: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=begin, args=(role, theirs, name), daemon=True)
        self._process.start()
        theirs.close()
        self.connection.recv()

    def end(self) -> None:
        """Let it close its bus and end."""
        self.connection.send(0)
        self._process.join()


async def over_the_bus(bus: SharedMemoryMessageBus, peer: Peer, total: int) -> tuple[float, float, float]:
    """Messages a second, and CPU microseconds a message of the sender and of the receiver."""
    peer.connection.send(total)
    began, cpu = time.monotonic(), time.process_time()
    for start in range(0, total, BATCH):
        await bus.send_many(made(start, BATCH))
    cpu = time.process_time() - cpu
    ended, theirs = await asyncio.to_thread(peer.connection.recv)
    return total / (ended - began), cpu / total * 1e6, theirs / total * 1e6


async def over_a_pipe(peer: Peer, total: int) -> tuple[float, float, float]:
    """The same with pickled lists, without names, order of priorities, bounds or counts."""
    peer.connection.send(total)
    began, cpu = time.monotonic(), time.process_time()
    for start in range(0, total, BATCH):
        peer.connection.send(made(start, BATCH))
    cpu = time.process_time() - cpu
    ended, theirs = peer.connection.recv()
    return total / (ended - began), cpu / total * 1e6, theirs / total * 1e6


async def over_a_queue(total: int) -> float:
    """Messages a second through an asyncio.Queue in one process: what the machine is worth just now."""
    queue: asyncio.Queue[Message] = asyncio.Queue()

    async def consume() -> None:
        for _ in range(total):
            await queue.get()

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0)
    began = time.perf_counter()
    for start in range(0, total, BATCH):
        for message in made(start, BATCH):
            await queue.put(message)
    await consumer
    return total / (time.perf_counter() - began)


async def round_ms(bus: SharedMemoryMessageBus) -> float:
    """One message to a group of 128 agents of the other process, each of which answers."""
    began = time.perf_counter()
    await bus.send(Message("coordinator", "agents", "ask", {"round": 1}))
    got = 0
    while got < AGENTS:
        got += len(await bus.receive_many("coordinator", AGENTS))
    return (time.perf_counter() - began) * 1e3


async def measure(*, messages: int, repetitions: int) -> None:
    """All of it."""
    name = f"benchmark-{uuid4().hex}"
    rates: list[tuple[float, float, float]] = []
    pipes: list[tuple[float, float, float]] = []
    queues: list[float] = []
    async with SharedMemoryMessageBus(name) as bus:
        await bus.register("coordinator")
        receiver, piped = Peer(receive_batches, name), Peer(receive_pickles, name)
        for turn in range(repetitions + 1):
            gc.collect()
            queue = await over_a_queue(messages)
            pipe = await over_a_pipe(piped, messages)
            rate = await over_the_bus(bus, receiver, messages)
            if turn:
                queues.append(queue)
                pipes.append(pipe)
                rates.append(rate)
        receiver.end()
        piped.end()
        answering = Peer(answer, name)
        rounds = [await round_ms(bus) for _ in range(20 * repetitions)]
        trips = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            await bus.request(Message("coordinator", "replier", "ask"))
            trips.append((time.perf_counter() - began) * 1e6)
        await asyncio.to_thread(answering.end)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(
        "| two processes, batches of 100 | messages/s | x asyncio.Queue | sender us | receiver us |\n|---|---|---|---|---|"
    )
    flood = statistics.median(queues)
    print(f"| asyncio.Queue, one process, one by one | {flood:,.0f} | 1.00 | | |")
    for title, samples in (("pipe with pickled lists", pipes), ("shared-memory bus", rates)):
        rate_, ours, theirs = (statistics.median(column) for column in zip(*samples, strict=True))
        print(f"| {title} | {rate_:,.0f} | {rate_ / flood:.2f} | {ours:.2f} | {theirs:.2f} |")
    trips.sort()
    print(f"\nshared-memory bus, best of the {repetitions} turns: {max(rate for rate, *_ in rates):,.0f}/s")
    print(
        f"round of 128 agents in another process: median {statistics.median(rounds):.1f} ms, best {min(rounds):.1f} ms"
    )
    print(f"request and reply: p50 {trips[len(trips) // 2]:.0f} us, p95 {trips[len(trips) * 95 // 100]:.0f} us")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    run(measure(messages=arguments.messages, repetitions=arguments.repetitions))


if __name__ == "__main__":
    main()
