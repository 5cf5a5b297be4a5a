"""`conclave population` as a person and a script meet it: what it plans, runs over seeds, renders and exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from infrastructure.population import calibration
from infrastructure.population.machine import Device, Network
from tests.command_line import Command, commands

SMALL = ("--agents=400", "--kernel=numpy", "--shards=2")


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with an empty working folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with commands(capsys) as run:
        yield run


def test_a_plan_says_what_is_needed_and_what_there_is(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.population.machine.cuda_devices", lambda: [Device("Example 9000", 80 << 30)])
    monkeypatch.setattr("infrastructure.population.machine.networks", lambda: [Network("eth0", 10_000)])
    ran = conclave("population", "plan", *SMALL, "--json")
    found: Any = ran.document
    assert ran.code == 0
    assert found["fits"] is True
    assert found["cores"] >= 1
    assert found["needed_bytes"] < found["available_bytes"]
    assert found["devices"] == [{"name": "Example 9000", "memory_bytes": 80 << 30}]
    assert found["networks"] == [{"name": "eth0", "mbit_s": 10_000}]
    assert found["disk"]["snapshots_bytes"] == 400 * 8 * 4 < found["disk"]["free_bytes"]
    assert found["tick"]["expected_ms"] > 0
    assert found["tick"]["measured_agents"] == 400
    assert not Path("population").exists()
    words = conclave("population", "plan", *SMALL).words
    assert "CUDA devices: Example 9000 with 80 GiB. Networks: eth0 of 10,000 Mbit/s" in words
    assert "A tick would take about" in words
    assert "It fits." in words


def test_a_plan_that_does_not_fit_is_not_measured_and_ends_badly(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(calibration, "calibrated", refuse)
    ran = conclave("population", "plan", "--agents=10000000", "--state-bytes=16384", "--json")
    assert (ran.code, ran.document["fits"], ran.document["tick"]) == (1, False, None)
    assert conclave("population", "plan", *SMALL, "--no-calibrate", "--json").document["tick"] is None


def test_no_room_for_snapshots_is_no_fit(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.population.machine.free_disk_bytes", lambda _folder: 1_000)
    ran = conclave("population", "plan", *SMALL, "--no-calibrate")
    assert ran.code == 1
    assert "It does not fit." in ran.words


def test_seeds_are_run_and_told_with_their_intervals(conclave: Command) -> None:
    ran = conclave("population", "run", *SMALL, "--ticks=5", "--seeds=3", "--seed=4", "--out=town")
    assert ran.code == 0, ran.stderr
    found = json.loads(Path("town/report.json").read_text())["replicates"]
    interval = found["mean"]
    assert "Over 3 of 3 seeds: mean, and where 95% would lie" in ran.words
    assert f"mean: {interval['value']:.5f} {interval['low']:.5f} {interval['high']:.5f}" in ran.words
    assert [run["seed"] for run in found["runs"]] == [4, 5, 6]


def test_a_population_is_exported_from_its_end(conclave: Command) -> None:
    assert conclave("population", "run", *SMALL, "--ticks=5", "--out=town").code == 0
    ran = conclave("population", "export", "town", "--json")
    assert ran.code == 0, ran.stderr
    found = ran.document
    assert (found["simulated"], found["tick"], found["rows"]) == (True, 5, 400)
    assert found["file"] == "town/agents-simulated-5.parquet"
    table = pyarrow.parquet.read_table(found["file"])
    assert table.column_names == found["columns"]
    mean = json.loads(Path("town/report.json").read_text())["opinions"]["final"]["mean"]
    assert sum(table["opinion"].to_pylist()) / 400 == pytest.approx(mean)
    assert "400 simulated agents after tick 5" in conclave("population", "export", "town", "--format=csv").words


def test_without_what_writes_it_a_format_is_refused_by_the_name_of_its_extra(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conclave("population", "run", *SMALL, "--ticks=1", "--out=town").code == 0
    monkeypatch.setattr("infrastructure.population.column_export.find_spec", lambda _name: None)
    ran = conclave("population", "export", "town")
    assert ran.code == 2
    assert "install the extra `arrow`, or take csv" in " ".join(ran.stderr.split())
    assert conclave("population", "export", "town", "--format=csv").code == 0


def test_how_opinions_lay_fits_a_narrow_terminal(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    ran = conclave("population", "run", "--agents=100", "--ticks=2", "--kernel=numpy")
    lines = ran.stdout.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("initial"))
    assert [line[:7] for line in lines[start : start + 4]] == ["initial", "  mean ", "final  ", "  mean "]
    assert max(map(len, lines[start : start + 4])) <= 40
