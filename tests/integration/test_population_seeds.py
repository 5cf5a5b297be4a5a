"""The same population under several seeds: one after the other, stopped and resumed in their middle, and summed up at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import load_settings
from api.bootstrap.population import open_population, resume_population
from application.services.population.intervals import replicates_document
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.population import NotEnoughMemoryError, PopulationFolderError
from domain.models.deliberation import DeliberationStatus
from domain.models.population import PopulationSpecification
from domain.models.run import JsonValue, RunEnding
from infrastructure.population import memory_plan
from tests.population.runs import Listener
from tests.population.towns import specification


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where settings say that everything else lies."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))


async def run(spec: PopulationSpecification, out: Path, *, stop_after: int | None = None) -> RunEnding:
    stop = StopSignal()

    class Stopping(Listener):
        def note(self, type: str, data: Any) -> None:  # noqa: A002 - as in the port
            super().note(type, data)
            if type == "population.started" and data["seed"] == stop_after:
                stop.set(StopReason.CANCELLED)

    with open_population(load_settings(), spec, out=out) as opened:
        return await opened.run(Stopping(), stop)


async def resume(out: Path) -> RunEnding:
    with resume_population(load_settings(), out) as opened:
        return await opened.run(Listener(), StopSignal())


def replicates(ending: RunEnding) -> dict[str, Any]:
    found: JsonValue = ending.result["replicates"]
    assert isinstance(found, dict)
    return found


async def test_every_seed_is_a_population_of_its_own(tmp_path: Path) -> None:
    ending = await run(specification(seeds=3, seed=5), tmp_path / "three")
    alone = [await run(specification(seed=seed), tmp_path / str(seed)) for seed in (5, 6, 7)]

    found = replicates(ending)
    assert ending.status is DeliberationStatus.COMPLETED
    assert [one["seed"] for one in found["runs"]] == [5, 6, 7]
    assert [one["state_hash"] for one in found["runs"]] == [one.result["state_hash"] for one in alone]
    assert ending.result["state_hash"] == alone[0].result["state_hash"]
    assert len({one["state_hash"] for one in found["runs"]}) == 3
    assert found == replicates_document([one.result for one in alone], planned=3)
    assert found["mean"]["low"] <= found["mean"]["value"] <= found["mean"]["high"]
    assert json.loads((tmp_path / "three" / "report.json").read_text()) == ending.result
    assert "Over seeds" in (tmp_path / "three" / "report.html").read_text()
    for seed in (6, 7):
        folder = tmp_path / "three" / "replicates" / f"seed-{seed}"
        assert len((folder / "ticks.jsonl").read_text().splitlines()) == 10
        assert list((folder / "snapshots").iterdir()) == []


@pytest.mark.parametrize("stopped_in", [5, 6, 7])
async def test_seeds_that_were_stopped_are_gone_on_with(tmp_path: Path, stopped_in: int) -> None:
    spec = specification(seeds=3, seed=5, ticks=30, snapshot_ticks=10)
    whole = await run(spec, tmp_path / "whole")
    ended = await run(spec, tmp_path / "cut", stop_after=stopped_in)
    assert ended.status is DeliberationStatus.CANCELLED
    assert replicates(ended)["done"] == stopped_in - 5

    again = await resume(tmp_path / "cut")

    assert again.status is DeliberationStatus.COMPLETED
    assert replicates(again) == replicates(whole)
    assert (await resume(tmp_path / "cut")).result == again.result


async def test_what_is_left_of_seeds_wants_room_and_minds_and_what_is_done_wants_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(specification(seeds=2), tmp_path / "cut", stop_after=1)
    await run(specification(seeds=2), tmp_path / "whole")
    asked = []
    monkeypatch.setattr("api.bootstrap.minds.minds_of", lambda _settings, spec: asked.append(spec.seeds))
    with resume_population(load_settings(), tmp_path / "cut"), resume_population(load_settings(), tmp_path / "whole"):
        assert asked == [2]
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: 1 << 20)
    with pytest.raises(NotEnoughMemoryError):
        await resume(tmp_path / "cut")
    assert (await resume(tmp_path / "whole")).status is DeliberationStatus.COMPLETED


async def test_seeds_that_are_not_done_are_not_written_over(tmp_path: Path) -> None:
    await run(specification(seeds=2), tmp_path, stop_after=1)
    with pytest.raises(PopulationFolderError, match="unfinished"):
        await run(specification(), tmp_path)
    await resume(tmp_path)
    assert (await run(specification(), tmp_path)).result["replicates"] is None
    assert not (tmp_path / "replicates").exists()


async def test_a_seed_whose_record_is_damaged_is_taken_from_its_beginning(tmp_path: Path) -> None:
    spec = specification(seeds=2, ticks=30, snapshot_ticks=10)
    whole = await run(spec, tmp_path / "whole")
    await run(spec, tmp_path / "cut", stop_after=1)
    folder = tmp_path / "cut" / "replicates" / "seed-1"
    # The stop may have come before its first tick.
    (folder / "events.jsonl").write_bytes(b'{"tick": 1}\nno line of a log\n')

    assert replicates(await resume(tmp_path / "cut")) == replicates(whole)


async def test_one_seed_is_no_reason_for_intervals(tmp_path: Path) -> None:
    ending = await run(specification(), tmp_path)
    assert ending.result["replicates"] is None
    assert "Over seeds" not in (tmp_path / "report.html").read_text()
