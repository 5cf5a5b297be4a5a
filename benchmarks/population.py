"""The table of targets for populations with both kernels, beside agents that are Python objects and asyncio actors.

    python -m benchmarks.population [--ticks 100] [--kill-at 1000] [--json FILE]

Times of two machines cannot be compared: what is shown beside them is how many times faster than Python objects a tick is.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from domain.models.population_targets import judged
from infrastructure.population.measuring import Measuring

_OBJECTS = 100_000
_ACTORS = 10_000
_DEGREE = 8
_BOUND = 0.2


class Agent:
    """An agent as an object: its opinion, whom it knows, and what it was sent."""

    __slots__ = ("heard", "known", "opinion")

    def __init__(self, opinion: float) -> None:
        self.opinion = opinion
        self.known: list[Agent] = []
        self.heard: list[float] = []

    def hear(self) -> None:
        near = [opinion for opinion in self.heard if abs(opinion - self.opinion) <= _BOUND]
        if near:
            self.opinion += 0.5 * (sum(near) / len(near) - self.opinion)
        self.heard.clear()


def objects_tick_ms(agents: int, ticks: int = 3) -> float:
    """One tick of objects, scaled to a million agents."""
    draw = random.Random(1)
    town = [Agent(draw.random()) for _ in range(agents)]
    for agent in town:
        agent.known = draw.choices(town, k=_DEGREE)
    times = []
    for _ in range(ticks):
        began = time.perf_counter()
        for agent in town:
            draw.choice(agent.known).heard.append(agent.opinion)
        for agent in town:
            agent.hear()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3 * 1_000_000 / agents


def actors_tick_ms(agents: int, ticks: int = 3) -> float:
    """One tick of asyncio actors, each a task with a queue, scaled to a million agents."""

    async def measured() -> float:
        draw = random.Random(1)
        queues: list[asyncio.Queue[float | None]] = [asyncio.Queue() for _ in range(agents)]
        town = [Agent(draw.random()) for _ in range(agents)]
        done = asyncio.Semaphore(0)

        async def act(agent: Agent, queue: asyncio.Queue[float | None]) -> None:
            while True:
                found = await queue.get()
                if found is None:
                    agent.hear()
                    done.release()
                else:
                    agent.heard.append(found)

        tasks = [asyncio.create_task(act(agent, queue)) for agent, queue in zip(town, queues, strict=True)]
        times = []
        for _ in range(ticks):
            began = time.perf_counter()
            for agent in town:
                queues[draw.randrange(agents)].put_nowait(agent.opinion)
            for queue in queues:
                queue.put_nowait(None)
            for _ in range(agents):
                await done.acquire()
            times.append(time.perf_counter() - began)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return statistics.median(times) * 1e3 * 1_000_000 / agents

    return asyncio.run(measured())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--kill-at", type=int, default=1_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(".numba-cache"))
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "objects_tick_ms": objects_tick_ms(_OBJECTS),
        "actors_tick_ms": actors_tick_ms(_ACTORS),
    }
    for kernel in ("numba", "numpy") if find_spec("numba") else ("numpy",):
        measuring = Measuring(kernel=kernel, cache=arguments.cache, say=print)
        found[kernel] = judged(measuring.figures(ticks=arguments.ticks, kill_at=arguments.kill_at), kernel=kernel)
        found[f"{kernel}_load"] = os.getloadavg()[0]
    print(f"Python {found['python']}, {found['cores']} cores; a million agents, one tick:")
    print(
        f"  Python objects {found['objects_tick_ms']:,.0f} ms, asyncio actors {found['actors_tick_ms']:,.0f} ms (scaled)"
    )
    for kernel in ("numba", "numpy"):
        if kernel not in found:
            continue
        print(f"\n{kernel}, load {found[f'{kernel}_load']:.1f}")
        for row in found[kernel]:
            value = "-" if row["value"] is None else f"{row['value']:,.3g}"
            print(
                f"  {row['what']:44} {value:>9} {row['unit']:4} must {row['must']:>7,g} aim {row['aim']:>6,g}  {row['verdict']}"
            )
        tick = found[kernel][0]["value"]
        print(f"  {found['objects_tick_ms'] / tick:,.0f} times the speed of Python objects")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
