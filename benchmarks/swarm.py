"""What a coin flip of a whole swarm takes, from loaded to backed up: 128, 1,024 and 10,000 agents on each transport.

python -m benchmarks.swarm [--repetitions 5] [--transports memory,redis,file,shm] [--agents 128,1024,10000] [--url redis://...] [--out FILE]

Wall time and what of it was this process' own processor time, medians of the undisturbed half; without an address a private Valkey is
started, which writes nothing down. The earlier implementation's figure for 128 agents was 52.3 s; it is named, not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from api.bootstrap.swarm import run_swarm
from application.ports.run_observer import NullRunObserver
from application.services.stop_signal import StopSignal
from domain.models.swarm import BATCH_SIZE, TRANSPORTS
from infrastructure.event_loop import run
from infrastructure.settings import Settings, load_settings
from tests.servers.redis import RedisServer

EARLIER_MS = 52_300.0
EARLIER_AGENTS = 128


async def flip(settings: Settings, transport: str, agents: int) -> Mapping[str, Any]:
    """The report of one swarm."""
    arguments: dict[str, Any] = {
        "agents": agents,
        "task": "coin-flip",
        "transport": transport,
        "batches": f"{-(-agents // BATCH_SIZE)}x{BATCH_SIZE}",
        "instances": 1,
        "seed": 7,
    }
    with tempfile.TemporaryDirectory() as out:
        ending = await run_swarm(settings, arguments, NullRunObserver(), StopSignal(), out=Path(out))
    assert ending.result["received"] == agents
    return ending.result


def cpu_ms(report: Mapping[str, Any], cores: int) -> float:
    """Processor milliseconds of the process of the roles."""
    return float(report["cpu_fraction"]) * float(report["wall_ms"]) * cores


def measure(settings: Settings, transport: str, agents: int, repetitions: int) -> dict[str, Any]:
    """Medians of the half that other work on the machine disturbed least, by how much longer wall was than processor time."""
    cores = len(os.sched_getaffinity(0))

    async def repeat() -> list[Mapping[str, Any]]:
        await flip(settings, transport, agents)
        return [await flip(settings, transport, agents) for _ in range(repetitions)]

    reports = sorted(run(repeat()), key=lambda report: float(report["wall_ms"]))
    kept = reports[: max(1, (len(reports) + 1) // 2)]
    return {
        "transport": transport,
        "agents": agents,
        "wall_ms": statistics.median(float(report["wall_ms"]) for report in kept),
        "cpu_ms": statistics.median(cpu_ms(report, cores) for report in kept),
        "load_ms": statistics.median(float(report["phases_ms"]["load"]) for report in kept),
        "backup_ms": statistics.median(float(report["phases_ms"]["backup"]) for report in kept),
        "messages_per_second": statistics.median(float(report["messages_per_second"]) for report in kept),
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--transports", default=",".join(TRANSPORTS))
    parser.add_argument("--agents", default="128,1024,10000")
    parser.add_argument("--url")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environment = {"CONCLAVE_DATA_DIR": folder}
        if "redis" in given.transports.split(","):
            url = given.url
            if url is None:
                server = stack.enter_context(RedisServer())
                server.command("CONFIG", "SET", "appendonly", "no")
                url = server.url()
            environment["CONCLAVE_REDIS_URL"] = url
        settings = load_settings(environment, env_file=None)
        print(f"load {os.getloadavg()[0]:.1f}; the earlier one took {EARLIER_MS / 1e3:g} s for {EARLIER_AGENTS} agents")
        print(
            "| transport | agents | wall ms | us an agent | x 128 | CPU ms | loading ms | backup ms | messages/s | x earlier |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        rows = []
        for transport in given.transports.split(","):
            first: float | None = None
            for agents in map(int, given.agents.split(",")):
                row = measure(settings, transport, agents, given.repetitions)
                first = first or row["wall_ms"]
                faster = f"{EARLIER_MS / row['wall_ms']:,.0f}" if agents == EARLIER_AGENTS else ""
                print(
                    f"| {transport} | {agents:,} | {row['wall_ms']:.1f} | {row['wall_ms'] / agents * 1e3:.0f} | "
                    f"{row['wall_ms'] / first:.1f} | {row['cpu_ms']:.1f} | {row['load_ms']:.1f} | {row['backup_ms']:.1f} | "
                    f"{row['messages_per_second']:,.0f} | {faster} |",
                    flush=True,
                )
                rows.append({**row, "load": os.getloadavg()[0]})
    if given.out is not None:
        with given.out.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
