"""The pantheon's bus time: nine agents in a row over the memory bus, beside a bare asyncio.Queue and, where installed, autogen-core.

    python -m benchmarks.pantheon [--cycles 500] [--repetitions 9] [--json FILE]

Bus time is the sum of a cycle's nine handoffs, each from just before its sending until its receiving, as the run itself traces them; what
the roles do in between is not in it. Times of two machines cannot be compared, so each is also given as what it is where asyncio.Queue
floods 774,000 messages a second, by how fast the queue was just before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from application.ports.run_observer import NullRunObserver
from application.services.pantheon.function_mind import FunctionMind
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopSignal
from benchmarks.bus import QUEUE_PER_S, Parcel, cycles_of_nine, through_a_queue
from domain.models.pantheon import ROW, PantheonRequest
from infrastructure.buses.memory_bus import MemoryMessageBus

TARGET_US = 72.0
TASK = "Count the words of this sentence, and give its SHA-256."

Measure = Callable[[int], Awaitable[list[float]]]


async def row_of_queues(rounds: int) -> list[float]:
    """Microseconds for a parcel through nine bare queues in a row: no names, no counts, no bounds, no trace."""
    queues: list[asyncio.Queue[Parcel]] = [asyncio.Queue() for _ in range(len(ROW) + 1)]

    async def hand_on(number: int) -> None:
        for _ in range(rounds):
            parcel = await queues[number].get()
            queues[number + 1].put_nowait(Parcel(str(number), str(number + 1), "handoff", parcel.payload))

    tasks = [asyncio.create_task(hand_on(number)) for number in range(len(ROW))]
    await asyncio.sleep(0)
    found = []
    for number in range(rounds):
        began = time.perf_counter_ns()
        queues[0].put_nowait(Parcel("operator", "0", "handoff", {"id": number}))
        await queues[-1].get()
        found.append((time.perf_counter_ns() - began) / 1e3)
    await asyncio.gather(*tasks)
    return found


async def row_on_the_bus(rounds: int) -> list[float]:
    """Microseconds for a message through nine agents that only send it on, and back to whoever sent it: ten handoffs."""
    return [seconds * 1e6 for seconds in await cycles_of_nine(rounds)]


async def bus_time(rounds: int, *, functions: bool) -> list[float]:
    """Microseconds of bus time of each cycle of a real run; with `functions` each role also asks one of the operator's."""

    async def say_nothing(_: dict[str, Any]) -> None:
        return None

    minds = {role: FunctionMind(say_nothing) for role in ROW} if functions else {}
    by_cycle: dict[int, float] = defaultdict(float)
    async with MemoryMessageBus() as bus:
        run = PantheonRun(PantheonRequest(TASK, None, rounds), bus=bus, minds=minds)
        ending = await run.run(NullRunObserver(), StopSignal())
    handoffs: Any = ending.result["handoffs"]
    assert (ending.result["status"], len(handoffs)) == ("executed", rounds * len(ROW))
    for handoff in handoffs:
        by_cycle[handoff["cycle"]] += handoff["latency_us"]
    return list(by_cycle.values())


async def whole_cycle(rounds: int) -> list[float]:
    """Microseconds of a cycle from end to end, all that the nine do, seal, check and hash included."""
    async with MemoryMessageBus() as bus:
        began = time.perf_counter_ns()
        await PantheonRun(PantheonRequest(TASK, None, rounds), bus=bus).run(NullRunObserver(), StopSignal())
        return [(time.perf_counter_ns() - began) / 1e3 / rounds]


async def autogen_row(rounds: int) -> list[float]:
    """Microseconds for a message through nine agents of autogen-core, each of which publishes to the topic of the next."""
    from benchmarks.autogen_row import through_autogen

    return await through_autogen(len(ROW), rounds)


async def measured(cycles: int, repetitions: int) -> dict[str, Any]:
    """Medians of each measure, as they are and scaled, all taken in turn."""
    measures: dict[str, Measure] = {
        "asyncio.Queue, nine in a row": row_of_queues,
        "memory bus, nine that only hand on": row_on_the_bus,
        "pantheon, bus time of a cycle": lambda rounds: bus_time(rounds, functions=False),
        "pantheon, bus time, a function for each role": lambda rounds: bus_time(rounds, functions=True),
        "pantheon, whole cycle with all work": whole_cycle,
    }
    if find_spec("autogen_core") is not None:
        measures["autogen-core, nine in a row"] = autogen_row
    found: dict[str, list[float]] = {name: [] for name in measures}
    scaled: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repetitions):
        for name, measure in measures.items():
            began = time.perf_counter()
            await through_a_queue(20_000)
            factor = 20_000 / (time.perf_counter() - began) / QUEUE_PER_S
            median = statistics.median(await measure(cycles))
            found[name].append(median)
            scaled[name].append(median * factor)
    return {
        "rows": {
            name: {
                "median_us": statistics.median(found[name]),
                "least_us": min(found[name]),
                "scaled_us": statistics.median(scaled[name]),
            }
            for name in measures
        },
        "target_us": TARGET_US,
        "cycles": cycles,
        "repetitions": repetitions,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }


def show(document: dict[str, Any]) -> None:
    """Print the document as a table."""
    print(f"Python {document['python']}, {document['cores']} cores, load {document['load']:.1f}\n")
    print(f"| us a cycle | median | least | where the queue floods {QUEUE_PER_S:,.0f}/s |\n|---|---|---|---|")
    for name, row in document["rows"].items():
        print(f"| {name} | {row['median_us']:.1f} | {row['least_us']:.1f} | {row['scaled_us']:.1f} |")
    print(f"\nPromised: at most {document['target_us']:.0f} us of bus time a cycle there.")


def main() -> None:
    """Measure and print; with --json also write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--uvloop", action="store_true", help="in the event loop that the command line runs in")
    arguments = parser.parse_args()
    work = measured(arguments.cycles, arguments.repetitions)
    if arguments.uvloop:
        from infrastructure.event_loop import run

        document = run(work)
    else:
        document = asyncio.run(work)
    show(document)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
