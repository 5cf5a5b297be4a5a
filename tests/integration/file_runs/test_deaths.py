"""Runs whose process was killed: failed at once for whoever looks, and whole in what they had recorded."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.errors.run import RunEndedError, RunNotFoundError
from infrastructure.runs.file_run_registry import FileRunRegistry
from tests.integration.file_runs.kept_runs import COMPLETED, FAILED, RUNNING

_HOLDER = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from tests.patience import eventually
at = datetime.now(UTC)
record = FileRunRegistry(Path(sys.argv[1])).register(Run(new_run_id(at), RunKind.SOAK, DeliberationStatus.RUNNING, {}, at))
for number in range(20):
    record.note("fake.counted", {"number": number})
eventually(lambda: os.stat(Path(sys.argv[1]) / record.id / "events.jsonl").st_size >= 2000)
if sys.argv[2] == "forks" and os.fork() == 0:
    sys.stdin.readline()
    os._exit(0)
print(record.id, flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_process(folder: Path, how: str = "alone") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that holds a run, and the run's id."""
    command = [sys.executable, "-c", _HOLDER, str(folder), how]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=here) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["alone", "forks"])
def test_a_run_whose_process_is_killed_has_failed_at_once(registry: FileRunRegistry, folder: Path, how: str) -> None:
    with another_process(folder, how) as (process, run_id):
        assert registry.get(run_id).status is RUNNING
        assert [run.status for run in registry.page(limit=1).items] == [RUNNING]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        found = registry.get(run_id)
    assert (found.status, found.reason) == (FAILED, "its process ended before its work did")
    events = registry.events(run_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == "run.failed"


def test_what_cannot_be_recorded_of_the_dead_is_seen_all_the_same(
    registry: FileRunRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_process(folder) as (process, run_id):
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("infrastructure.runs.file_run_registry.replace_file", refuse)
    assert registry.get(run_id).status is FAILED
    monkeypatch.undo()
    assert json.loads((folder / run_id / "run.json").read_text())["status"] == "running"
    assert registry.get(run_id).status is FAILED
    assert json.loads((folder / run_id / "run.json").read_text())["status"] == "failed"


_BUSY = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
registry = FileRunRegistry(Path(sys.argv[1]), keep=8)

def one_run():
    at = datetime.now(UTC)
    record = registry.register(Run(new_run_id(at), RunKind.SWARM, DeliberationStatus.RUNNING, {}, at))
    for number in range(20):
        record.note("fake.counted", {"number": number})
    record.end(DeliberationStatus.COMPLETED, at=at, result={"heads": 1})
    record.close()

one_run()
print("ready", flush=True)
while True:
    one_run()
"""


def test_processes_killed_at_any_moment_leave_only_whole_runs(folder: Path, sized: Callable[[int, int], int]) -> None:
    registry = FileRunRegistry(folder, keep=8)
    moments = random.Random(11)
    busy: list[subprocess.Popen[str]] = []

    def breed() -> None:
        busy.append(subprocess.Popen([sys.executable, "-c", _BUSY, str(folder)], stdout=subprocess.PIPE, text=True))

    def look() -> None:
        for run in registry.page(limit=8).items:
            # Others remove old runs meanwhile, and end those that were running.
            with contextlib.suppress(RunNotFoundError, RunEndedError):
                events = registry.events(run.id)
                assert [event.sequence for event in events] == list(range(1, len(events) + 1))
                assert run.result == {"heads": 1} or run.status is not COMPLETED
                registry.request_end(run.id)

    try:
        for _ in range(3):
            breed()
        for process in busy:
            # A run of each is there before the first kill: on a fast machine all three could be dead before they had one.
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for _ in range(sized(3, 300)):
            for _ in range(moments.randrange(1, 12)):
                look()
            victim = busy.pop(0)
            victim.kill()
            victim.communicate()
            if sized(0, 1):
                breed()
    finally:
        for process in busy:
            process.kill()
            process.communicate()
    runs = registry.page(limit=99).items
    assert runs
    assert {run.status for run in runs} <= {COMPLETED, FAILED}
    for run in runs:
        registry.settle(run.id, FAILED, reason="")
        assert registry.events(run.id)[-1].is_terminal
