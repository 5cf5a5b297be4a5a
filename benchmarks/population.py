"""Populations beside what others would build them with, how they grow, and the table of targets with both kernels.

    python -m benchmarks.population [--parts peers,growth,targets] [--repetitions 9] [--largest 10000000] [--out FILE]

Contenders take turns in one run. Who cannot take a tick of a million agents in reasonable time takes one of fewer, and its time is
multiplied: that is said, and in favour of whoever slows down with size. Results are appended to FILE, one JSON document a line.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import population_peers as peers
from benchmarks.measurement import Contender, Run, alternate, machine
from domain.errors.population import PopulationError
from domain.models.population import PopulationSpecification
from domain.models.population_targets import judged
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.measuring import Measuring
from infrastructure.population.snapshots import Snapshots

MILLION = 1_000_000
_SIZES = (10_000, 100_000, 1_000_000, 10_000_000)


@asynccontextmanager
async def ours(agents: int, *, kernel: str, cache: Path) -> AsyncIterator[Run]:
    """One tick of the engine that `conclave population run` uses."""
    spec = PopulationSpecification(agents=agents, kernel=kernel, degree=peers.DEGREE, bound=peers.BOUND)
    with tempfile.TemporaryDirectory() as folder:
        engine = LocalEngine(spec, snapshots=Snapshots(Path(folder)), cache=cache)

        async def run() -> None:
            engine.tick(engine.ticks_taken + 1)

        try:
            yield run
        finally:
            engine.close()


def contenders(cache: Path) -> Sequence[tuple[str, str | None, int, Callable[[int], Any]]]:
    """Name, the package it wants, how many agents it takes a tick of, and how it is opened."""
    return (
        ("Conclave, numba", "numba", MILLION, lambda agents: ours(agents, kernel="numba", cache=cache)),
        ("Conclave, numpy", None, MILLION, lambda agents: ours(agents, kernel="numpy", cache=cache)),
        ("mesa-frames (Polars)", "mesa_frames", MILLION, peers.mesa_frames),
        ("Python objects", None, 100_000, peers.objects),
        ("asyncio actors", None, 10_000, peers.actors),
        ("Ray actors", "ray", 8, peers.ray_actors),
    )


async def beside_peers(repetitions: int, cache: Path, out: Path | None) -> None:
    """One tick of everybody in turn."""
    missing: list[str] = []
    found: list[tuple[Contender, int]] = []
    async with AsyncExitStack() as stack:
        for name, package, agents, opened in contenders(cache):
            if package is not None and importlib.util.find_spec(package) is None:
                missing.append(name)
                continue
            found.append((Contender(name, await stack.enter_async_context(opened(agents))), agents))
        load = os.getloadavg()[0]
        await alternate([contender for contender, _ in found], repetitions=repetitions)
    first = found[0][0].median(_wall) / found[0][1]
    rows: list[dict[str, Any]] = []
    for contender, agents in found:
        wall = contender.median(_wall)
        rows.append(
            {
                "name": contender.name,
                "agents": agents,
                "tick_ms": wall,
                "million_ms": wall * MILLION / agents,
                "ratio": wall / agents / first,
                "runs": len(contender.samples),
            }
        )
    print(f"\nOne tick of a million agents, degree {peers.DEGREE}, one message each (load {load:.1f} at the beginning)")
    print("| contender | agents measured | tick ms, median | of a million, ms | x first | runs |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("| {name} | {agents:,} | {tick_ms:,.1f} | {million_ms:,.0f} | {ratio:,.1f} | {runs} |".format(**row))
    for name in missing:
        print(f"| {name} | not installed | | | | |")
    _keep({"title": "one tick beside peers", "load": load, "rows": rows, "not_installed": missing}, out)


def growth(kernel: str, largest: int, cache: Path, out: Path | None) -> None:
    """Tick, memory and messages from ten thousand agents on, each population in a process of its own."""
    measuring = Measuring(kernel=kernel, cache=cache, say=print)
    rows: list[Mapping[str, float]] = []
    print(f"\n{kernel}: growth, 256 bytes of state")
    print("| agents | tick ms, median | mean | per agent, ns | messages M/s | memory GiB | spawn s | load |")
    print("|---|---|---|---|---|---|---|---|")
    for agents in _SIZES:
        if agents > largest:
            break
        try:
            row = {"agents": agents, **measuring.grown(agents), "load": os.getloadavg()[0]}
        except PopulationError as error:
            print(f"| {agents:,} | not measured: {error} | | | | | | |")
            continue
        rows.append(row)
        print(
            "| {agents:,} | {median_ms:,.2f} | {mean_ms:,.2f} | {per_agent_ns:,.0f} | {messages:,.1f} | {memory:,.2f} "
            "| {spawn_s:,.2f} | {load:.1f} |".format(**row)
        )
    _keep({"title": "growth", "kernel": kernel, "rows": rows}, out)


def targets(kernel: str, ticks: int, kill_at: int, cache: Path, out: Path | None) -> None:
    """The table of targets."""
    measuring = Measuring(kernel=kernel, cache=cache, say=print)
    rows = judged(measuring.figures(ticks=ticks, kill_at=kill_at), kernel=kernel)
    print(f"\n{kernel}, load {os.getloadavg()[0]:.1f}")
    print("| what | value | must | aim | verdict |")
    print("|---|---|---|---|---|")
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:,.3g} {row['unit']}"
        print(f"| {row['what']} | {value} | {row['must']:g} | {row['aim']:g} | {row['verdict']} |")
    _keep({"title": "targets", "kernel": kernel, "load": os.getloadavg()[0], "rows": rows}, out)


def _wall(sample: Any) -> float:
    return float(sample.wall_ms)


def _keep(document: Mapping[str, Any], out: Path | None) -> None:
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps({**document, "machine": machine()}) + "\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="peers,growth,targets", help="which, comma-separated")
    parser.add_argument("--kernels", default="numba,numpy", help="of growth and targets")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--largest", type=int, default=_SIZES[-1], help="no population beyond it")
    parser.add_argument("--ticks", type=int, default=100)
    parser.add_argument("--kill-at", type=int, default=1_000)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    parser.add_argument("--cache", type=Path, default=Path(".numba-cache"))
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    kernels = [
        kernel
        for kernel in arguments.kernels.split(",")
        if kernel != "numba" or importlib.util.find_spec("numba") is not None
    ]
    if "peers" in parts:
        asyncio.run(beside_peers(arguments.repetitions, arguments.cache, arguments.out))
    for kernel in kernels:
        if "growth" in parts:
            growth(kernel, arguments.largest, arguments.cache, arguments.out)
        if "targets" in parts:
            targets(kernel, arguments.ticks, arguments.kill_at, arguments.cache, arguments.out)


if __name__ == "__main__":
    main()
