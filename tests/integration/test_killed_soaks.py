"""Soaks whose process was killed: nothing of theirs outlives them, and they are continued where they stood."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from application.services.soak.run_soak import Continuation
from domain.errors.configuration import ConfigurationError
from infrastructure.soak.coordination_folder import CoordinationFolder
from tests.soak.runs import Soak, eventually, foreign_agent, living, plan_of

RUNNER = """
import asyncio, sys
from pathlib import Path
from tests.soak.runs import Soak, plan_of
asyncio.run(Soak(plan_of(1000, agents=3), Path(sys.argv[1])).run())
"""


@contextmanager
def locked(statuses: Path) -> Iterator[None]:
    """What the agents of a run hold for as long as one of them lives."""
    file = os.open(statuses, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


@pytest.fixture
def orchestrator(tmp_path: Path, repository_root: Path) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts a run in a process of its own."""

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": f"{repository_root / 'src'}{os.pathsep}{repository_root}"}
        return subprocess.Popen([sys.executable, "-c", RUNNER, str(tmp_path)], env=environment)

    return start


async def rows_below(folder: Path, least: int) -> Path:
    """The file of the rows, once it has so many."""
    metrics = folder / "out/stability-metrics.jsonl"
    await eventually(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= least)
    return metrics


async def test_no_agent_outlives_an_orchestrator_that_is_killed(
    tmp_path: Path, orchestrator: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = orchestrator()
    await rows_below(tmp_path, 2)
    statuses = [json.loads(path.read_text()) for path in (tmp_path / "coord/status").iterdir()]
    pids = [status["pid"] for status in statuses]
    process.kill()
    process.wait()
    assert len(pids) == 3
    await eventually(lambda: not living(pids))


async def test_a_run_begins_once_the_agents_of_one_that_was_killed_are_gone(
    tmp_path: Path, orchestrator: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = orchestrator()
    statuses = tmp_path / "coord/status"
    await eventually(lambda: statuses.exists() and len(list(statuses.glob("agent-*-status.json"))) == 3)
    pids = [json.loads(path.read_text())["pid"] for path in statuses.iterdir()]
    folder = CoordinationFolder(statuses.parent)
    process.kill()
    process.wait()
    folder.open()
    await eventually(folder.is_deserted)
    assert not living(pids)
    folder.close()


async def test_agents_that_a_killed_run_has_left_are_waited_for_and_take_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = CoordinationFolder.is_deserted

    def count(folder: CoordinationFolder) -> bool:
        looks.append(look(folder))
        return looks[-1]

    monkeypatch.setattr(CoordinationFolder, "is_deserted", count)
    soak = Soak(plan_of(2), tmp_path)
    with foreign_agent(soak.coord, "1") as late, locked(soak.coord / "status"):
        running = asyncio.create_task(soak.run())
        await eventually(lambda: len(looks) > 1)
        # One that is slow to die.
        late.kill()
        late.wait()
    report = await running
    assert looks[-2:] == [False, True]
    assert (report["messages_sent"], report["crashes"]) == (6, 0)


async def test_agents_of_a_killed_run_that_do_not_leave_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infrastructure.soak.file_post._DESERTED_WITHIN_S", 0.05)
    (tmp_path / "coord/status").mkdir(parents=True)
    with locked(tmp_path / "coord/status"), pytest.raises(ConfigurationError, match="agents of an earlier soak"):
        await Soak(plan_of(2), tmp_path).run()
    assert (await Soak(plan_of(2), tmp_path).run())["messages_sent"] == 6


async def test_an_interrupted_run_is_continued_and_every_cycle_stands_there_once(
    tmp_path: Path, orchestrator: Callable[[], subprocess.Popen[bytes]]
) -> None:
    process = orchestrator()
    metrics = await rows_below(tmp_path, 3)
    process.kill()
    process.wait()
    with metrics.open("a") as file:
        file.write('{"type": "coordination_cycle", "cyc')
    earlier = Soak(plan_of(1), tmp_path, continuation=Continuation()).record.rows()
    soak = Soak(plan_of(len(earlier) + 4), tmp_path, continuation=Continuation(earlier, ["earlier"]))
    report = await soak.run()
    assert [row["cycle"] for row in soak.rows()] == list(range(1, len(earlier) + 5))
    assert report["cycles_completed"] == len(earlier) + 4
    assert report["messages_sent"] == 3 * (len(earlier) + 4)
    assert report["criteria"]["complete_metrics"]["passed"] is True
