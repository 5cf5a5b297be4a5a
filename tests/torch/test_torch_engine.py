"""Populations as tensors: run by `make test-torch`, in an environment that has torch; on a CUDA device where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.errors.population import InvalidPopulationError
from tests.population.runs import resumed, run_in
from tests.population.towns import specification

_TICKS = 12


@pytest.mark.parametrize(
    "given",
    [
        {"behaviour": "bounded_confidence"},
        {"behaviour": "bounded_confidence", "activity": 0.6, "messages": 3},
        {"behaviour": "bounded_confidence", "graph": "communities", "bound": 0.05},
        {"behaviour": "bounded_confidence", "graph": "mixed"},
        {"behaviour": "degroot"},
        {"behaviour": "degroot", "graph": "scale_free"},
        {"behaviour": "degroot", "graph": "mixed", "messages": 2},
        {"behaviour": "voter", "messages": 2},
        {"behaviour": "voter", "graph": "mixed"},
        {"behaviour": "threshold", "graph": "small_world", "bound": 0.1},
        {"behaviour": "threshold", "graph": "mixed"},
    ],
    ids=lambda given: "-".join(str(value) for value in given.values()),
)
async def test_tensors_come_to_the_bits_that_shards_come_to(tmp_path: Path, given: dict[str, Any]) -> None:
    here = await run_in(tmp_path / "here", specification(ticks=_TICKS, agents=3_001, seed=7, **given))
    there = await run_in(tmp_path / "there", specification(ticks=_TICKS, agents=3_001, seed=7, engine="torch", **given))
    assert there.result["state_hash"] == here.result["state_hash"]
    assert there.result["messages_routed"] == here.result["messages_routed"]
    assert there.result["engine"] == "torch"


async def test_tensors_go_on_from_a_snapshot(tmp_path: Path) -> None:
    spec = specification(ticks=_TICKS, engine="torch", behaviour="voter", snapshot_ticks=5)
    whole = await run_in(tmp_path / "whole", spec)
    (tmp_path / "whole" / "report.json").unlink()
    ended = await resumed(tmp_path / "whole", from_tick=10)
    assert ended.result["state_hash"] == whole.result["state_hash"]


def test_tensors_run_no_behaviour_of_a_users_own() -> None:
    with pytest.raises(InvalidPopulationError, match="must be a built-in one with the engine 'torch'"):
        specification(engine="torch", behaviour="tests.population.minds:Exact")
