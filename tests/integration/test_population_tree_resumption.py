"""Populations with dormancy, commands, turnover and columns of their own, killed in their middle: they go on to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from domain.models.population import PopulationSpecification
from infrastructure.population.snapshots import Snapshots
from tests.population.endings import EndedHereError, Ending, command, ended, ticks_in
from tests.population.runs import resumed, run_in
from tests.population.towns import specification, town

LIVES: dict[str, dict[str, Any]] = {
    "dormancy": {"behaviour": "threshold", "bound": 0.2, "graph": "small_world", "dormancy": True, "departures": 0.001},
    "turnover": {
        "begin_with": 1_000,
        "arrivals": 0.02,
        "departures": 0.03,
        "commands": ("5:activity=0.4", "12:bound=1"),
    },
    "commands": {
        "commands": ("2:bound=0.6:0", "9:pause:0", "13:wake:0", "16:susceptibility=0.9"),
        "graph": "communities",
    },
    "columns": {"memory_bytes": 8, "metrics": 4, "peers": 5, "messages": 2},
}


def _spec(life: str, **given: Any) -> PopulationSpecification:
    return specification(**{"agents": 1_550, "ticks": 24, "snapshot_ticks": 5, **LIVES[life], **given})


def _ended_by_kill(folder: Path, cache: Path, spec: PopulationSpecification, *, at: int) -> int:
    task = {"folder": str(folder), "cache": str(cache), "specification": spec.document(), "kill_at": at}
    return subprocess.run(
        [sys.executable, "-P", "-m", "infrastructure.population.bench_process", json.dumps(task)],
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ).returncode


@pytest.mark.parametrize("life", sorted(LIVES))
async def test_a_killed_population_comes_to_the_same_end(tmp_path: Path, life: str) -> None:
    spec = _spec(life)
    whole = await run_in(tmp_path / "whole", spec)
    assert _ended_by_kill(tmp_path / "cut", tmp_path / "cache", spec, at=13) == -signal.SIGKILL
    assert ticks_in(tmp_path / "cut") == list(range(1, 13))

    again = await resumed(tmp_path / "cut")

    assert again.result["state_hash"] == whole.result["state_hash"]
    # Who slept before sleeps after it, so that as much was said.
    assert again.result["messages_routed"] == whole.result["messages_routed"]
    trees: Any = [whole.result["tree"], again.result["tree"]]
    for name in ("turnover", "localities", "dormancy"):
        assert trees[0].get(name) == trees[1].get(name)
    assert trees[0]["regions"]["paused"] == trees[1]["regions"]["paused"]


@pytest.mark.parametrize("killed_at", [3, 8, 9, 12, 14])
async def test_a_region_is_as_paused_after_a_resumption_as_before(tmp_path: Path, killed_at: int) -> None:
    spec = _spec("commands", snapshot_ticks=1)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=killed_at, by=ended))
    assert (await resumed(tmp_path / "cut")).result["state_hash"] == whole.result["state_hash"]


async def test_another_kernel_and_other_shards_go_on_to_the_same_end(tmp_path: Path) -> None:
    spec = _spec("turnover", dormancy=True, metrics=4)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=17, by=ended))
    about = json.loads((tmp_path / "cut" / "population.json").read_text())
    about["specification"] |= {"shards": 7, "workers": "processes"}
    (tmp_path / "cut" / "population.json").write_text(json.dumps(about))
    assert (await resumed(tmp_path / "cut")).result["state_hash"] == whole.result["state_hash"]


def test_a_snapshot_of_a_tree_says_no_more_than_is_needed(tmp_path: Path) -> None:
    for life, names in (
        ("dormancy", {"tree.asleep", "tree.counts"}),
        ("turnover", {"tree.counts"}),
        ("columns", set()),
    ):
        (tmp_path / life).mkdir()
        with town(tmp_path / life, _spec(life)) as engine:
            engine.tick(1)
            engine.save(1)
            engine.settle()
        found = Snapshots(tmp_path / life / "snapshots").read(1)
        assert {name for name in found if name.startswith("tree.")} == names
        assert ("metrics" in found) == (life == "columns")


def test_the_command_line_says_all_of_it(tmp_path: Path) -> None:
    words = (
        *("--agents=900", "--ticks=12", "--kernel=numpy", "--dormancy", "--command=3:pause:0", "--command=5:wake"),
        *("--arrivals=0.01", "--departures=0.02", "--begin-with=800", "--fold-every=4", "--metrics=4", "--peers=2"),
        *("--memory-bytes=8", "--json"),
    )
    ran = command("population", "run", *words, "--out=town", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["tree"]["commands"]["carried_out"] == 2
    assert report["tree"]["turnover"]["arrived"] > 50
    assert set(report["tree"]) > {"levels", "factor", "measured", "opinions", "regions", "localities", "dormancy"}
    assert report["coordination_ms"] > 0


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--command=3:dance", "--command must be TICK:WHAT"),
        ("--arrivals=2", "--arrivals"),
        ("--memory-bytes=90000", "--memory-bytes"),
        ("--external=5000", "--external"),
        ("--bus=memory", "--bus memory reaches no other process"),
        ("--fold-every=-1", "--fold-every"),
    ],
)
def test_what_no_tree_can_do_is_said_in_one_line(tmp_path: Path, word: str, said: str) -> None:
    ran = command("population", "run", "--agents=900", "--ticks=9", word, folder=tmp_path)
    assert ran.returncode == 2
    assert said in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr
