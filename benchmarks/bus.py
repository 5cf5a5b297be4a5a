"""The memory bus beside asyncio.Queue and autogen-core: messages end to end, latencies, requests, broadcasts and a row of nine.

    python -m benchmarks.bus [--messages 50000] [--repetitions 9] [--json FILE]

Contenders take turns in one run; what is shown are medians of the half of the runs that other work disturbed least, and ratios to
asyncio.Queue, because times of two machines cannot be compared.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from application.ports.message_bus import Message
from benchmarks.measurement import Contender, Sample, alternate
from infrastructure.buses.memory_bus import MemoryMessageBus

AGENTS = 128
ROW = ("observer", "reasoner", "actor", "validator", "executor", "memory", "analyzer", "learner", "improver")
# What the measure may be at most, where asyncio.Queue floods 774,000 messages a second.
QUEUE_PER_S = 774_000.0
TARGETS = {
    "asyncio.Queue, one in flight p50 us": None,
    "asyncio.Queue, one in flight p95 us": None,
    "one in flight p50 us": 5.0,
    "one in flight p95 us": 7.0,
    "request and reply p50 us": 12.0,
    f"broadcast to {AGENTS}, all received, p50 us": 400.0,
    "cycle of nine p50 us": 72.0,
}


class Parcel:
    """What goes through the bare queue: as many fields as a message, and when it was made."""

    __slots__ = ("at", "correlation_id", "payload", "priority", "recipient", "sender", "type")

    def __init__(self, sender: str, recipient: str, kind: str, payload: object) -> None:
        self.sender = sender
        self.recipient = recipient
        self.type = kind
        self.payload = payload
        self.priority = 1
        self.correlation_id: str | None = None
        self.at = time.perf_counter_ns()


async def through_a_queue(messages: int) -> None:
    """The bar: an unbounded queue, put without waiting and taken one by one."""
    queue: asyncio.Queue[Parcel] = asyncio.Queue()

    async def take() -> None:
        for _ in range(messages):
            await queue.get()

    taking = asyncio.create_task(take())
    await asyncio.sleep(0)
    for number in range(messages):
        queue.put_nowait(Parcel("a", "b", "note", {"id": number, "data": "benchmark payload"}))
    await taking


async def through_the_bus(messages: int, *, take: str) -> None:
    """Sent one by one to an inbox with a bound, counted and timed; received as `take` says."""
    async with MemoryMessageBus() as bus:
        await bus.register("b", acknowledge="manual" if take == "manual" else "auto")

        async def one_by_one() -> None:
            for _ in range(messages):
                await bus.receive("b")

        async def many() -> None:
            taken = 0
            while taken < messages:
                taken += len(await bus.receive_many("b", 256))

        async def by_hand() -> None:
            for _ in range(messages):
                message = await bus.receive("b")
                await bus.acknowledge("b", message.id)

        taking = asyncio.create_task({"one": one_by_one, "many": many, "manual": by_hand}[take]())
        await asyncio.sleep(0)
        send = bus.send
        for number in range(messages):
            await send(Message("a", "b", "note", {"id": number, "data": "benchmark payload"}))
        await taking


async def one_in_flight_of_a_queue(rounds: int) -> list[float]:
    """Seconds from put to the getter that waits: the bar for the next."""
    queue: asyncio.Queue[float] = asyncio.Queue()
    latencies: list[float] = []
    heard = asyncio.Event()

    async def take() -> None:
        for _ in range(rounds):
            latencies.append(-(await queue.get()) + time.perf_counter())
            heard.set()

    taking = asyncio.create_task(take())
    await asyncio.sleep(0)
    for _ in range(rounds):
        heard.clear()
        await queue.put(time.perf_counter())
        await heard.wait()
        await asyncio.sleep(0)
    await taking
    return latencies


async def one_in_flight(rounds: int) -> list[float]:
    """Seconds from send to the receiver that waits."""
    async with MemoryMessageBus() as bus:
        await bus.register("b")
        latencies: list[float] = []
        heard = asyncio.Event()

        async def take() -> None:
            for _ in range(rounds):
                message = await bus.receive("b")
                assert isinstance(message.payload, float)
                latencies.append(time.perf_counter() - message.payload)
                heard.set()

        taking = asyncio.create_task(take())
        await asyncio.sleep(0)
        for _ in range(rounds):
            heard.clear()
            await bus.send(Message("a", "b", "note", time.perf_counter()))
            await heard.wait()
            await asyncio.sleep(0)
        await taking
        return latencies


async def requests(rounds: int) -> list[float]:
    """Seconds from a request to its reply."""
    async with MemoryMessageBus() as bus:
        await bus.register("a")
        await bus.register("b")

        async def answer() -> None:
            for _ in range(rounds):
                await bus.reply(await bus.receive("b"))

        answering = asyncio.create_task(answer())
        await asyncio.sleep(0)
        latencies = []
        for number in range(rounds):
            began = time.perf_counter()
            await bus.request(Message("a", "b", "ask", {"id": number}))
            latencies.append(time.perf_counter() - began)
        await answering
        return latencies


async def broadcasts(rounds: int) -> list[float]:
    """Seconds from a broadcast until all have received it."""
    async with MemoryMessageBus() as bus:
        names = [f"agent-{number}" for number in range(AGENTS)]
        for name in names:
            await bus.register(name)
        left = 0
        everybody = asyncio.Event()

        async def take(name: str) -> None:
            nonlocal left
            for _ in range(rounds):
                await bus.receive(name)
                left -= 1
                if not left:
                    everybody.set()

        taking = [asyncio.create_task(take(name)) for name in names]
        await asyncio.sleep(0)
        latencies = []
        for number in range(rounds):
            left = AGENTS
            everybody.clear()
            began = time.perf_counter()
            await bus.broadcast(Message("a", "everybody", "note", {"id": number}))
            await everybody.wait()
            latencies.append(time.perf_counter() - began)
            await asyncio.sleep(0)
        await asyncio.gather(*taking)
        return latencies


async def cycles_of_nine(rounds: int) -> list[float]:
    """Seconds for one message to pass through nine agents in a row, each of which sends it on."""
    async with MemoryMessageBus() as bus:
        for name in (*ROW, "operator"):
            await bus.register(name)

        async def hand_on(name: str, to: str) -> None:
            for _ in range(rounds):
                message = await bus.receive(name)
                await bus.send(Message(name, to, "handoff", message.payload))

        onwards = [*ROW[1:], "operator"]
        tasks = [asyncio.create_task(hand_on(name, to)) for name, to in zip(ROW, onwards, strict=True)]
        await asyncio.sleep(0)
        latencies = []
        for number in range(rounds):
            began = time.perf_counter()
            await bus.send(Message("operator", ROW[0], "handoff", {"id": number}))
            await bus.receive("operator")
            latencies.append(time.perf_counter() - began)
        await asyncio.gather(*tasks)
        return latencies


async def autogen_publish(agents: int) -> Callable[[], Awaitable[None]]:
    """autogen-core: what publishes one message to so many agents and returns when all have handled it."""
    from autogen_core import DefaultTopicId, TypeSubscription

    from benchmarks.autogen_panel import Ask, Panelist, SingleThreadedAgentRuntime

    handled = 0

    async def handle() -> str:
        nonlocal handled
        handled += 1
        return ""

    runtime = SingleThreadedAgentRuntime()
    for number in range(agents):
        await Panelist.register(runtime, f"agent_{number}", lambda: Panelist(handle))
        await runtime.add_subscription(TypeSubscription("default", f"agent_{number}"))

    async def publish() -> None:
        nonlocal handled
        handled = 0
        runtime.start()
        await runtime.publish_message(Ask("hello"), DefaultTopicId())
        await runtime.stop_when_idle()
        assert handled == agents, handled

    return publish


def quantile_us(seconds: list[float], share: float) -> float:
    """A quantile, in microseconds."""
    return sorted(seconds)[int(share * (len(seconds) - 1))] * 1e6


async def throughput(messages: int, repetitions: int) -> list[dict[str, Any]]:
    """Messages a second end to end, CPU a message and the ratio to asyncio.Queue."""

    def taken(way: str) -> Callable[[], Awaitable[object]]:
        return lambda: through_the_bus(messages, take=way)

    contenders = [
        Contender("asyncio.Queue", lambda: through_a_queue(messages)),
        Contender("memory, receive", taken("one")),
        Contender("memory, receive_many", taken("many")),
        Contender("memory, acknowledged by hand", taken("manual")),
    ]
    await alternate(contenders, repetitions=repetitions, warm_up=1)

    def per_second(contender: Contender) -> float:
        return messages / contender.median(lambda sample: sample.wall_ms) * 1e3

    def cpu_us(sample: Sample) -> float:
        return sample.cpu_ms / messages * 1e3

    bar = per_second(contenders[0])
    return [
        {
            "name": each.name,
            "per_second": per_second(each),
            "of_queue": per_second(each) / bar,
            "cpu_us": each.median(cpu_us),
        }
        for each in contenders
    ]


async def latencies(repetitions: int) -> dict[str, dict[str, float | None]]:
    """Each measure in microseconds: the median, and the median of what it is where asyncio.Queue floods `QUEUE_PER_S`.

    How fast the queue is here is measured anew before each repetition, in CPU time: a median of latencies is not disturbed by other work
    that takes the processor now and then, and a flood is.
    """
    found: dict[str, list[float]] = {name: [] for name in TARGETS}
    scaled: dict[str, list[float]] = {name: [] for name in TARGETS}
    for _ in range(repetitions):
        began = time.process_time()
        await through_a_queue(20_000)
        factor = 20_000 / (time.process_time() - began) / QUEUE_PER_S
        bare = await one_in_flight_of_a_queue(3_000)
        single = await one_in_flight(3_000)
        rows = (bare, bare, single, single, await requests(3_000), await broadcasts(100), await cycles_of_nine(1_000))
        for name, row in zip(TARGETS, rows, strict=True):
            measure = quantile_us(row, 0.95 if "p95" in name else 0.5)
            found[name].append(measure)
            scaled[name].append(measure * factor)
    return {
        name: {"measured": statistics.median(found[name]), "scaled": statistics.median(scaled[name]), "target": target}
        for name, target in TARGETS.items()
    }


async def measured(messages: int, repetitions: int) -> dict[str, Any]:
    """Everything, as one document."""
    table = await throughput(messages, repetitions)
    document: dict[str, Any] = {
        "throughput": table,
        "latency_us": {"asyncio": await latencies(repetitions)},
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if find_spec("autogen_core") is not None:
        peer = Contender("autogen-core, publish to 72", await autogen_publish(72))
        await alternate([peer], repetitions=repetitions)
        document["autogen_72_ms"] = peer.median(lambda sample: sample.wall_ms)
    return document


def show(document: dict[str, Any]) -> None:
    """Print the document as two tables."""
    print(f"Python {document['python']}, {document['cores']} cores, load {document['load']:.1f}\n")
    print("| end to end | messages/s | x asyncio.Queue | CPU us |\n|---|---|---|---|")
    for row in document["throughput"]:
        print(f"| {row['name']} | {row['per_second']:,.0f} | {row['of_queue']:.2f} | {row['cpu_us']:.2f} |")
    for loop in ("asyncio", "uvloop"):
        rows = document["latency_us"].get(loop)
        if rows is not None:
            print(
                f"\n| latency on {loop}, us | measured | where the queue floods {QUEUE_PER_S:,.0f}/s | target there |"
            )
            print("|---|---|---|---|")
            for name, row in rows.items():
                target = "" if row["target"] is None else f"{row['target']:.0f}"
                print(f"| {name} | {row['measured']:.1f} | {row['scaled']:.1f} | {target} |")
    if "autogen_72_ms" in document:
        print(f"\nautogen-core, one message published to 72 and handled by all: {document['autogen_72_ms']:.1f} ms")


def main() -> None:
    """Measure and print; with --json also write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    document = asyncio.run(measured(arguments.messages, arguments.repetitions))
    if find_spec("uvloop") is not None:
        import uvloop

        # The loop that the service runs on.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            document["latency_us"]["uvloop"] = runner.run(latencies(arguments.repetitions))
    show(document)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
