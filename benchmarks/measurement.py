"""Alternating measurements of several contenders in one run, reported as medians and ratios to the first of them."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["Contender", "Run", "Sample", "alternate", "machine", "report"]

Run = Callable[[], Awaitable[object]]


@dataclass
class Sample:
    """One timed run: wall and CPU in milliseconds, and the share of the wall in which our threads waited for a core."""

    wall_ms: float
    cpu_ms: float
    waited: float


@dataclass
class Contender:
    """Something that does the job; `run` does it once."""

    name: str
    run: Run
    samples: list[Sample] = field(default_factory=list)

    def undisturbed(self) -> list[Sample]:
        """The half of the runs that other work on the machine disturbed least, at least three."""
        ordered = sorted(self.samples, key=lambda sample: sample.waited)
        return ordered[: max(3, (len(ordered) + 1) // 2)]

    def median(self, measure: Callable[[Sample], float]) -> float:
        """The median of a measure over the undisturbed runs."""
        return statistics.median(measure(sample) for sample in self.undisturbed())


async def alternate(
    contenders: Sequence[Contender], *, repetitions: int, warm_up: int = 2, budget_s: float = 120.0
) -> None:
    """Run each contender in turn, again and again, so that what disturbs one disturbs all.

    A contender that has used its share of `budget_s` seconds is left out of further turns once it has three samples.
    """
    for contender in contenders:
        for _ in range(warm_up):
            await contender.run()
    share_s = budget_s / len(contenders)
    for _ in range(repetitions):
        for contender in contenders:
            if len(contender.samples) >= 3 and sum(s.wall_ms for s in contender.samples) > share_s * 1000:
                continue
            contender.samples.append(await _timed(contender.run))


async def _timed(run: Run) -> Sample:
    gc.collect()
    waited, cpu, wall = _waited_s(), time.process_time(), time.perf_counter()
    await run()
    wall = time.perf_counter() - wall
    return Sample(wall * 1e3, (time.process_time() - cpu) * 1e3, (_waited_s() - waited) / wall)


def _waited_s() -> float:
    """Seconds in which threads of this process were ready but another one had the core (Linux schedstat)."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat") if sys.platform == "linux" else ():
        try:
            total += int(task.read_text().split()[1])
        except OSError:
            continue  # the thread has ended between the listing and the reading
    return total / 1e9


def report(
    title: str, contenders: Sequence[Contender], *, agents: int, ideal_ms: float, out: Path | None
) -> dict[str, Any]:
    """Print a table of medians and ratios to the first contender and write it as JSON beside earlier runs."""
    first = contenders[0].median(lambda sample: sample.wall_ms)
    rows = [_row(contender, first, agents) for contender in contenders]
    print(f"\n{title} (ideal {ideal_ms:g} ms)")
    print("| contender | wall ms | x first | above first, us/agent | CPU us/agent | runs |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| {name} | {wall_ms:.1f} | {ratio:.2f} | {above_us:.1f} | {cpu_us:.0f} | {runs} |".format(**row))
    document = {"title": title, "agents": agents, "ideal_ms": ideal_ms, "machine": machine(), "rows": rows}
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as file:
            file.write(json.dumps(document) + "\n")
    return document


def _row(contender: Contender, first_ms: float, agents: int) -> Mapping[str, Any]:
    wall = contender.median(lambda sample: sample.wall_ms)
    return {
        "name": contender.name,
        "wall_ms": wall,
        "ratio": wall / first_ms,
        "above_us": (wall - first_ms) / agents * 1e3,
        "cpu_us": contender.median(lambda sample: sample.cpu_ms) / agents * 1e3,
        "runs": len(contender.samples),
    }


def machine() -> dict[str, Any]:
    """What was measured on, and when."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
