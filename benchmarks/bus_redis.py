"""What the Redis bus carries: by hundreds with acknowledgement, a round of 128 agents, and one in flight, beside bare Streams.

python -m benchmarks.bus_redis [--url redis://HOST:PORT/0] [--repetitions 5] [--messages 20000] [--out FILE]

Without an address a private Valkey is started, which writes nothing down. The peer is redis-py alone: pipelines of 100 XADD, then
XREADGROUP and XACK of 100, with the same JSON and none of the bus' inboxes, priorities, bounds, counts or duplicates. Both ends are in
one process, and then in two.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from application.ports.message_bus import Message, Payload
from benchmarks.measurement import Contender, alternate, report
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.event_loop import run
from tests.servers.redis import RedisServer

AGENTS = 128
BATCH = 100
IN_FLIGHT = 200
BODY: dict[str, Payload] = {
    "id": 1,
    "from": "coin_1",
    "to": "coin_group",
    "type": "coin_result",
    "content": {"face": "heads", "n": 1},
    "padding": "x" * 60,
}


def bare_redis(url: str) -> Any:
    """redis-py alone."""
    from redis.asyncio import BlockingConnectionPool, Redis

    return Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=4, protocol=2))


async def close_bare(redis: Any) -> None:
    """Without leaving a connection behind."""
    await redis.aclose()
    await redis.connection_pool.disconnect()


async def send_bare(redis: Any, key: str, messages: int) -> None:
    """By pipelines of a hundred."""
    for _ in range(messages // BATCH):
        async with redis.pipeline(transaction=False) as pipe:
            for _ in range(BATCH):
                pipe.xadd(key, {"d": json.dumps(BODY)})
            await pipe.execute()


async def take_bare(redis: Any, key: str, messages: int) -> None:
    """By hundreds, acknowledged."""
    taken = 0
    while taken < messages:
        for _, entries in await redis.xreadgroup("g", "c", {key: ">"}, count=BATCH, block=1000):
            for _, fields in entries:
                json.loads(fields[b"d"])
            await redis.xack(key, "g", *(entry_id for entry_id, _ in entries))
            taken += len(entries)


async def send_all(bus: RedisMessageBus, messages: int) -> None:
    """By hundreds."""
    for _ in range(messages // BATCH):
        await bus.send_many([Message("s", "a", "coin_result", BODY) for _ in range(BATCH)])


async def take_all(bus: RedisMessageBus, messages: int, mode: str) -> None:
    """By hundreds, acknowledged by taking them or by hand."""
    taken = 0
    while taken < messages:
        some = await bus.receive_many("a", BATCH)
        taken += len(some)
        if mode == "manual":
            await bus.acknowledge("a", *[one.id for one in some])


def batches(url: str, messages: int, mode: str) -> Callable[[], Awaitable[object]]:
    """Send by hundreds and take by hundreds at the same time, from two objects."""

    async def once() -> None:
        namespace = secrets.token_hex(4)
        async with RedisMessageBus(url, namespace) as sender, RedisMessageBus(url, namespace) as receiver:
            await receiver.register("a", acknowledge=mode)
            sending = asyncio.create_task(send_all(sender, messages))
            await take_all(receiver, messages, mode)
            await sending
            await receiver.unregister("a")

    return once


def bare_streams(url: str, messages: int) -> Callable[[], Awaitable[object]]:
    """The same traffic by redis-py alone."""

    async def once() -> None:
        redis = bare_redis(url)
        key = secrets.token_hex(4)
        await redis.xgroup_create(key, "g", id="0", mkstream=True)
        sending = asyncio.create_task(send_bare(redis, key, messages))
        await take_bare(redis, key, messages)
        await sending
        await redis.delete(key)
        await close_bare(redis)

    return once


def serve_sender(url: str, pipe: Connection) -> None:
    """Another process: sends what it is told to, and says what CPU it took, in seconds."""

    async def serve() -> None:
        while (told := await asyncio.to_thread(pipe.recv)) is not None:
            mode, place, messages = told
            bare, bus = bare_redis(url), RedisMessageBus(url, place)
            await (bare.ping() if mode == "bare" else bus.stats())
            pipe.send(None)
            await asyncio.to_thread(pipe.recv)
            began = time.process_time()
            await (send_bare(bare, place, messages) if mode == "bare" else send_all(bus, messages))
            pipe.send(time.process_time() - began)
            await bus.close()
            await close_bare(bare)

    run(serve())


@dataclass
class Trip:
    """One run between two processes: messages a second, and CPU in us a message."""

    rate: float
    sender_us: float
    receiver_us: float
    server_us: float


def cpu_of(process_id: int) -> float:
    """Seconds of CPU of another process; nan where the system does not tell."""
    try:
        words = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return float("nan")
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def between_processes(url: str, messages: int, mode: str, pipe: Connection) -> Trip:
    """The same, sent by the other process."""
    place = secrets.token_hex(4)
    bare, bus = bare_redis(url), RedisMessageBus(url, place)
    process_id = (await bare.info("server"))["process_id"]
    if mode == "bare":
        await bare.xgroup_create(place, "g", id="0", mkstream=True)
    else:
        await bus.register("a", acknowledge=mode)
    pipe.send((mode, place, messages))
    await asyncio.to_thread(pipe.recv)
    began, own, server = time.perf_counter(), time.process_time(), cpu_of(process_id)
    pipe.send(None)
    await (take_bare(bare, place, messages) if mode == "bare" else take_all(bus, messages, mode))
    took, own, server = time.perf_counter() - began, time.process_time() - own, cpu_of(process_id) - server
    sender = await asyncio.to_thread(pipe.recv)
    if mode == "bare":
        await bare.delete(place)
    else:
        await bus.unregister("a")
    await bus.close()
    await close_bare(bare)
    each = 1e6 / messages
    return Trip(messages / took, sender * each, own * each, server * each)


async def compare_processes(url: str, messages: int, repetitions: int) -> None:
    """In turn, medians."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender = context.Process(target=serve_sender, args=(url, theirs), daemon=True)
    sender.start()
    found: dict[str, list[Trip]] = {"bare": [], "auto": [], "manual": []}
    for at in range(repetitions + 1):
        for mode, trips in found.items():
            trip = await between_processes(url, messages, mode, ours)
            if at:
                trips.append(trip)
    ours.send(None)
    await asyncio.to_thread(sender.join)
    print("| two processes | messages/s | x bare | sender us CPU | receiver us CPU | server us CPU |")
    bare = statistics.median(trip.rate for trip in found["bare"])
    for mode, trips in found.items():
        cells = [
            statistics.median(getattr(trip, name) for trip in trips)
            for name in ("rate", "sender_us", "receiver_us", "server_us")
        ]
        cpu = " | ".join(f"{cell:.1f}" for cell in cells[1:])
        print(
            f"| {mode} | {cells[0]:,.0f} (best {max(trip.rate for trip in trips):,.0f}) | {cells[0] / bare:.2f} | {cpu} |"
        )


def rounds(url: str, number: int) -> Callable[[], Awaitable[object]]:
    """A message to a group of 128, each of whom answers one; all agents in one process."""

    async def once() -> float:
        async with RedisMessageBus(url, secrets.token_hex(4)) as bus:
            names = [f"coin_{agent}" for agent in range(AGENTS)]
            await asyncio.gather(*(bus.register(name) for name in [*names, "log"]))
            await asyncio.gather(*(bus.join(name, "coin_group") for name in names))

            async def agent(name: str) -> None:
                for _ in range(number):
                    await bus.receive(name)
                    await bus.send(Message(name, "log", "coin_result", BODY))

            agents = [asyncio.create_task(agent(name)) for name in names]
            took = []
            for _ in range(number):
                began = time.perf_counter()
                await bus.send(Message("log", "coin_group", "flip"))
                heard = 0
                while heard < AGENTS:
                    heard += len(await bus.receive_many("log", AGENTS))
                took.append(time.perf_counter() - began)
            await asyncio.gather(*agents)
            return sorted(took)[len(took) // 2]

    return once


def one_in_flight(url: str) -> Callable[[], Awaitable[object]]:
    """Sent, received, and only then the next."""

    async def once() -> None:
        async with RedisMessageBus(url, secrets.token_hex(4)) as bus:
            await bus.register("a")
            for _ in range(IN_FLIGHT):
                waiting = asyncio.create_task(bus.receive("a"))
                await bus.send(Message("s", "a", "coin_result", BODY))
                await waiting

    return once


async def measure(url: str, *, repetitions: int, messages: int, out: Path | None) -> None:
    """Alternate ours with the peer, and report medians with the load of the machine."""
    print(f"load before: {os.getloadavg()[0]:.2f}")
    contenders = [
        Contender("bare Streams, acknowledged", bare_streams(url, messages)),
        Contender("Conclave, auto", batches(url, messages, "auto")),
        Contender("Conclave, acknowledged by hand", batches(url, messages, "manual")),
    ]
    await alternate(contenders, repetitions=repetitions, warm_up=1)
    report(
        f"{messages} messages by {BATCH}, both ends in one process", contenders, agents=messages, ideal_ms=0, out=out
    )
    for contender in contenders:
        rate = messages / contender.median(lambda sample: sample.wall_ms) * 1e3
        print(f"{contender.name}: {rate:,.0f} messages a second")
    await compare_processes(url, messages, repetitions)
    once = rounds(url, 10)
    medians = sorted([await once() for _ in range(repetitions)], key=lambda found: float(str(found)))
    print(f"a round of {AGENTS} agents: {float(str(medians[len(medians) // 2])) * 1e3:.1f} ms")
    single = [Contender("one in flight", one_in_flight(url))]
    await alternate(single, repetitions=repetitions, warm_up=1)
    print(f"one in flight: {single[0].median(lambda sample: sample.wall_ms) / IN_FLIGHT * 1e3:.0f} us a message")
    print(f"load after: {os.getloadavg()[0]:.2f}")


def main(url: str | None, *, repetitions: int, messages: int, out: Path | None) -> None:
    """Measure at an address, or at a server of our own."""
    if url is not None:
        run(measure(url, repetitions=repetitions, messages=messages, out=out))
        return
    with RedisServer() as server:
        server.command("CONFIG", "SET", "appendonly", "no")
        run(measure(server.url(), repetitions=repetitions, messages=messages, out=out))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    main(arguments.url, repetitions=arguments.repetitions, messages=arguments.messages, out=arguments.out)
