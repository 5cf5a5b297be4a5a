"""The soak: how soon 50 agents are ready, how long a cycle takes to the last response, and what an agent takes, beside a naive harness.

The naive one forks its agents from a Python process that has the usual imports, and both sides look for files every 5 ms, with a
rename for each. Run as `python -m benchmarks.soak`; times are those of this machine, so read the ratios, and the load beside them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from application.ports.run_observer import NullRunObserver
from application.services.soak.run_soak import RunSoak
from application.services.stop_signal import StopSignal
from domain.models.soak import SoakPlan
from infrastructure.event_loop import run
from infrastructure.soak.coordination_folder import CoordinationFolder
from infrastructure.soak.file_post import FilePost
from infrastructure.soak.forked_agents import ForkedAgents
from infrastructure.soak.output_folder import ERRORS, OutputFolder
from infrastructure.soak.process_gauge import ProcGauge

READY_LIMIT_MS, CYCLE_LIMIT_MS, PSS_LIMIT = 1_000.0, 30.0, 8 * 2**20
POLL_S = 0.005


async def ours(folder: Path, *, agents: int, cycles: int, interval_s: float, polls: bool) -> dict[str, Any]:
    """The report of one run and its rows."""
    record = OutputFolder(folder / "out")
    record.open(resumes=False)
    session = secrets.token_hex(4)
    post = FilePost(CoordinationFolder(folder / "coord"), session=session, polls=polls)
    configuration = {
        "transport": "files",
        "folder": str(folder / "coord"),
        "messages": post.messages_path,
        "polls": polls,
    }
    soak = RunSoak(
        SoakPlan(agents=agents, duration_s=cycles * interval_s, interval_s=interval_s),
        host=ForkedAgents(configuration, light=True, errors=folder / "out" / ERRORS),
        post=post,
        gauge=ProcGauge(),
        record=record,
        session=session,
    )
    report = dict((await soak.execute(NullRunObserver(), StopSignal())).result)
    return {"report": report, "rows": list(record.rows())}


def naive(folder: Path, *, agents: int, cycles: int) -> dict[str, float]:
    """The same messages as files without anything around them, in milliseconds."""
    folder.mkdir()
    began = time.perf_counter()
    pids = []
    for number in range(agents):
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                _naive_agent(folder, number)
            os._exit(0)
        pids.append(pid)
    try:
        _wait_for(folder, [f"ready-{number}" for number in range(agents)])
        ready_ms = (time.perf_counter() - began) * 1e3
        times = []
        for cycle in range(cycles):
            began = time.perf_counter()
            for number in range(agents):
                _write(folder / f"message-{number}", {"id": cycle})
            names = [f"response-{number}-{cycle}" for number in range(agents)]
            _wait_for(folder, names)
            for name in names:
                json.loads((folder / name).read_text())
            times.append((time.perf_counter() - began) * 1e3)
        pss = max(memory.pss for memory in ProcGauge().memory(pids).values())
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return {"ready_ms": ready_ms, "cycle_ms": statistics.median(times), "pss": pss}


def _naive_agent(folder: Path, number: int) -> None:
    _write(folder / f"ready-{number}", {})
    last = -1
    while True:
        with contextlib.suppress(OSError, ValueError):
            message = json.loads((folder / f"message-{number}").read_text())
            if message["id"] != last:
                last = message["id"]
                _write(folder / f"response-{number}-{last}", {"id": last})
        time.sleep(POLL_S)


def _write(path: Path, document: object) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document))
    draft.replace(path)


def _wait_for(folder: Path, names: list[str]) -> None:
    wanted = set(names)
    while not wanted <= set(os.listdir(folder)):  # noqa: PTH208 - the quickest look
        time.sleep(POLL_S)


async def main(arguments: argparse.Namespace) -> None:
    """Take turns, and print medians with the best and the worst run."""
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {arguments.agents} agents"
    )
    found: dict[str, list[dict[str, float]]] = {"soak": [], "soak, polling": [], "naive": []}
    for _ in range(arguments.repetitions):
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        try:
            found["naive"].append(naive(folder / "naive", agents=arguments.agents, cycles=arguments.cycles))
            for name, polls in (("soak", False), ("soak, polling", True)):
                done = await ours(
                    folder / name.replace(", ", "-"),
                    agents=arguments.agents,
                    cycles=arguments.cycles,
                    interval_s=arguments.interval,
                    polls=polls,
                )
                report = done["report"]
                assert report["lost"] == 0
                durations = [row["duration"] for row in done["rows"]]
                found[name].append(
                    {
                        "ready_ms": report["ready_ms"],
                        "cycle_ms": statistics.median(durations),
                        "judged_ms": statistics.median(row["judgedDuration"] for row in done["rows"]),
                        "pss": report["memory"]["max_pss"],
                    }
                )
        finally:
            shutil.rmtree(folder)
    print("| harness | ready, ms | cycle to 100 %, ms | of it undisturbed, ms | most PSS of an agent, MiB |")
    print("|---|---|---|---|---|")
    for name, runs in found.items():
        print(
            f"| {name} | {_spread(runs, 'ready_ms')} | {_spread(runs, 'cycle_ms')} | {_spread(runs, 'judged_ms')} | "
            f"{max(one['pss'] for one in runs) / 2**20:.2f} |"
        )
    soak = found["soak"]
    for title, name, limit in (
        ("ready", "ready_ms", READY_LIMIT_MS),
        ("cycle", "cycle_ms", CYCLE_LIMIT_MS),
        ("PSS", "pss", PSS_LIMIT),
    ):
        value = statistics.median(one[name] for one in soak)
        print(f"{title}: {value:,.1f}, aim {limit:,.0f}: {'met' if value <= limit else 'MISSED'}")
    print(f"load {os.getloadavg()[0]:.1f}")
    if arguments.out is not None:
        with arguments.out.open("a") as file:
            file.write(json.dumps({"machine": platform.platform(), "load": os.getloadavg()[0], **found}) + "\n")


def _spread(runs: list[dict[str, float]], name: str) -> str:
    values = [one[name] for one in runs if name in one]
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})" if values else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--cycles", type=int, default=24)
    parser.add_argument("--interval", type=float, default=0.2, help="seconds")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))  # noqa: S108 - where a soak runs by default
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    run(main(parser.parse_args()))
