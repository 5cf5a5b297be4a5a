"""What the Redis bus carries: by hundreds with acknowledgement, a round of 128 agents, and one in flight, beside bare Streams.

python -m benchmarks.bus_redis [--url redis://HOST:PORT/0] [--repetitions 5] [--messages 10000] [--out FILE]

Without an address a private Valkey is started, which writes nothing down. The peer is redis-py alone: pipelines of 100 XADD, then
XREADGROUP and XACK of 100, with the same JSON and none of the bus' inboxes, priorities, bounds, counts or duplicates.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import time
from collections.abc import Awaitable, Callable
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


def batches(url: str, messages: int, mode: str) -> Callable[[], Awaitable[object]]:
    """Send by hundreds and take by hundreds at the same time, from two objects."""

    async def once() -> None:
        namespace = secrets.token_hex(4)
        async with RedisMessageBus(url, namespace) as sender, RedisMessageBus(url, namespace) as receiver:
            await receiver.register("a", acknowledge=mode)

            async def sends() -> None:
                for _ in range(messages // BATCH):
                    await sender.send_many([Message("s", "a", "coin_result", BODY) for _ in range(BATCH)])

            sending = asyncio.create_task(sends())
            taken = 0
            while taken < messages:
                some = await receiver.receive_many("a", BATCH)
                taken += len(some)
                if mode == "manual":
                    await receiver.acknowledge("a", *(one.id for one in some))
            await sending
            await receiver.unregister("a")

    return once


def bare_streams(url: str, messages: int) -> Callable[[], Awaitable[object]]:
    """The same traffic by redis-py alone."""

    async def once() -> None:
        from redis.asyncio import BlockingConnectionPool, Redis

        redis: Any = Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=4, protocol=2))
        key = secrets.token_hex(4)
        await redis.xgroup_create(key, "g", id="0", mkstream=True)

        async def sends() -> None:
            for _ in range(messages // BATCH):
                async with redis.pipeline(transaction=False) as pipe:
                    for _ in range(BATCH):
                        pipe.xadd(key, {"d": json.dumps(BODY)})
                    await pipe.execute()

        sending = asyncio.create_task(sends())
        taken = 0
        while taken < messages:
            [[_, entries]] = await redis.xreadgroup("g", "c", {key: ">"}, count=BATCH, block=1000)
            for _, fields in entries:
                json.loads(fields[b"d"])
            await redis.xack(key, "g", *(entry_id for entry_id, _ in entries))
            taken += len(entries)
        await sending
        await redis.delete(key)
        await redis.aclose()
        await redis.connection_pool.disconnect()

    return once


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
    report(f"{messages} messages by {BATCH}", contenders, agents=messages, ideal_ms=0, out=out)
    for contender in contenders:
        rate = messages / contender.median(lambda sample: sample.wall_ms) * 1e3
        print(f"{contender.name}: {rate:,.0f} messages a second")
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
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    main(arguments.url, repetitions=arguments.repetitions, messages=arguments.messages, out=arguments.out)
