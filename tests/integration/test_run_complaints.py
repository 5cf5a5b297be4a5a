"""What a run says on standard error lies in its folder, and takes only so much room."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.bounded_log import FIRST_BYTES, LAST_BYTES
from infrastructure.runs.run_processes import ProcessLauncher, environment_of_runs

REPOSITORY = Path(__file__).parents[2]


async def test_of_a_run_that_complains_without_end_the_first_and_the_last_lines_are_kept(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment = environment_of_runs(environ, sources=REPOSITORY / "src")
    run = Run(new_run_id(datetime.now(UTC)), RunKind.SWARM, DeliberationStatus.QUEUED, {})
    (tmp_path / run.id).mkdir(mode=0o700)
    process = await ProcessLauncher(tmp_path, environment, program="tests.loud_run").launch(run, ["swarm", "run"])
    assert await process.wait() == 0
    place = tmp_path / run.id / "stderr.log"
    lines = place.read_text().splitlines()
    assert lines[0].startswith("line 0:")
    assert lines[-1].startswith("line 49999:")
    assert [line for line in lines if "bytes are left out here" in line] != []
    assert FIRST_BYTES + LAST_BYTES < place.stat().st_size < FIRST_BYTES + LAST_BYTES + 100
    assert place.stat().st_mode & 0o077 == 0
