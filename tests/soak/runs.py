"""Soaks of a test: small plans over real processes and files, and agents of others beside them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from application.ports.run_observer import NullRunObserver
from application.services.soak.run_soak import Continuation, RunSoak
from application.services.stop_signal import StopSignal
from domain.models.run import RunEnding
from domain.models.soak import SoakPlan
from infrastructure.soak.coordination_folder import CoordinationFolder
from infrastructure.soak.file_post import FilePost
from infrastructure.soak.forked_agents import ForkedAgents
from infrastructure.soak.output_folder import ERRORS, OutputFolder
from infrastructure.soak.process_gauge import ProcGauge, is_alive
from tests import patience
from tests.patience import eventually_in_loop

__all__ = ["FOREIGN", "Soak", "background", "eventually", "foreign_agent", "kill", "living", "plan_of", "titles_of"]

FOREIGN = Path(__file__).with_name("foreign_agent.py")
PATIENCE_S = 30.0


def plan_of(cycles: int, *, agents: int = 3, interval_s: float = 0.05, **more: Any) -> SoakPlan:
    """A plan of that many cycles; a message is waited for long enough for a busy machine."""
    more.setdefault("response_timeout_s", 20.0)
    return SoakPlan(agents=agents, duration_s=cycles * interval_s, interval_s=interval_s, **more)


class Soak:
    """One run over files below `folder`: `coord` and `out`."""

    def __init__(
        self, plan: SoakPlan, folder: Path, *, polls: bool = False, continuation: Continuation | None = None
    ) -> None:
        self.plan = plan
        self.coord = folder / "coord"
        self.out = folder / "out"
        self.record = OutputFolder(self.out, history_bytes=2**20)
        self.record.open(resumes=continuation is not None)
        session = secrets.token_hex(4)
        self.post = FilePost(CoordinationFolder(self.coord), session=session, polls=polls)
        configuration = {
            "transport": "files",
            "folder": str(self.coord),
            "messages": self.post.messages_path,
            "polls": self.post.polls,
        }
        self.host = ForkedAgents(configuration, light=True, errors=self.out / ERRORS)
        self.stop = StopSignal()
        self.use_case = RunSoak(
            plan,
            host=self.host,
            post=self.post,
            gauge=ProcGauge(),
            record=self.record,
            session=session,
            continuation=continuation,
            seed=1,
        )

    async def run(self) -> dict[str, Any]:
        """The report."""
        return dict((await self.end()).result)

    async def end(self) -> RunEnding:
        """How it ended."""
        return await self.use_case.execute(NullRunObserver(), self.stop)

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows in the file."""
        return [json.loads(line) for line in (self.out / "stability-metrics.jsonl").read_text().splitlines()]

    def status(self, agent: str) -> dict[str, Any]:
        """What that agent says of itself, or nothing."""
        try:
            return dict(json.loads((self.coord / "status" / f"agent-{agent}-status.json").read_text()))
        except (OSError, ValueError):
            return {}

    async def cycle_done(self, cycle: int) -> None:
        """Return when that cycle has its row."""
        path = self.out / "stability-metrics.jsonl"
        await eventually(lambda: path.exists() and len(path.read_text().splitlines()) >= cycle)


async def eventually(condition: Callable[[], object]) -> None:
    """Return when it holds, which another process brings about."""

    async def now() -> object:
        return condition()

    await eventually_in_loop(now, patience_s=PATIENCE_S)


@contextmanager
def background(command: Sequence[str], *, ready: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside the test, gone afterwards; with `ready`, there when that file is."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        if ready is not None:
            patience.eventually(lambda: ready.exists() or process.poll() is not None, patience_s=PATIENCE_S)
            assert ready.exists()
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def foreign_agent(folder: Path, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """An agent of somebody else in the coordination folder."""
    command = [sys.executable, "-I", "-S", str(FOREIGN), str(folder), name, *options]
    with background(command, ready=folder / "status" / f"agent-{name}-status.json") as process:
        yield process


def titles_of(pid: int) -> tuple[str, bytes]:
    """The name and the command line of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip(), Path(f"/proc/{pid}/cmdline").read_bytes()


def living(pids: Iterable[int]) -> list[int]:
    """Those that still run."""
    return [pid for pid in pids if is_alive(pid)]


def kill(pid: int) -> None:
    """SIGKILL."""
    os.kill(pid, signal.SIGKILL)
