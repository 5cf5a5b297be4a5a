"""What an earlier run left in the folder of a population: kept where it can still be of use, and gone where it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.bootstrap import load_settings
from api.bootstrap.population import open_population
from application.services.stop_signal import StopSignal
from domain.errors.population import DamagedRecordError
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.snapshots import Snapshots
from tests.command_line import Command, commands
from tests.population.endings import EndedHereError, Ending, ended
from tests.population.runs import Listener, resumed, run_in
from tests.population.towns import specification


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with an empty working folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("CONCLAVE_REDIS_URL", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with commands(capsys) as run:
        yield run


@pytest.mark.parametrize(
    "wrong",
    [
        ("--graph=nowhere.txt",),
        ("--graph=edges",),
        ("--behaviour=nowhere:X",),
        ("--inference=policy", "--inference-weights=nowhere.npz"),
        ("--thinkers=3", "--thinker=nowhere:think"),
        ("--tiers", "--warm=redis"),
    ],
)
def test_a_population_that_is_refused_leaves_the_earlier_one_as_it_was(
    conclave: Command, wrong: tuple[str, ...]
) -> None:
    small = ("population", "run", "--agents=50", "--ticks=2", "--kernel=numpy")
    assert conclave(*small).code == 0
    Path("edges").write_text("0 1\n3 77\n")
    before = {path: path.read_bytes() for path in Path("population").rglob("*") if path.is_file()}

    assert conclave(*small, *wrong).code == 2

    assert {path: path.read_bytes() for path in Path("population").rglob("*") if path.is_file()} == before


def test_a_new_population_removes_what_an_earlier_one_left_and_nothing_else(tmp_path: Path) -> None:
    left = ("states.sqlite", "states.sqlite-wal", "thoughts.jsonl", "samples.jsonl", "report.html", "ticks.jsonl")
    for name in left:
        (tmp_path / name).write_text("of an earlier run")
    for name in ("states.lmdb/data.mdb", "replicates/seed-1/report.json", "elsewhere/kept"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("of an earlier run")
    (tmp_path / "states.link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "notes.txt").write_text("mine")

    folder = PopulationFolder(tmp_path)
    try:
        folder.start(specification())
    finally:
        folder.close()

    assert {path.name for path in tmp_path.iterdir()} == {
        *("lock", "population.json", "ticks.jsonl", "events.jsonl", "notes.txt", "elsewhere"),
    }
    assert (tmp_path / "ticks.jsonl").read_bytes() == b""
    assert (tmp_path / "elsewhere" / "kept").exists()


async def test_a_resume_that_is_refused_leaves_the_record_as_it_was(tmp_path: Path) -> None:
    spec = specification(ticks=30, snapshot_ticks=5)
    whole = await run_in(tmp_path / "whole", spec)
    cut = tmp_path / "cut"
    with pytest.raises(EndedHereError):
        await run_in(cut, spec, wrap=lambda engine: Ending(engine, at=18, by=ended))
    log = cut / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[16] = b"{}\n"
    log.write_bytes(b"".join(lines))
    damaged = log.read_bytes()

    with pytest.raises(DamagedRecordError, match="is not there"):
        await resumed(cut, from_tick=7)
    assert log.read_bytes() == damaged

    assert (await resumed(cut, from_tick=15)).result["state_hash"] == whole.result["state_hash"]


async def test_ticks_that_are_missing_leave_the_event_log_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, specification(snapshot_ticks=5), wrap=lambda engine: Ending(engine, at=8, by=ended))
    before = (tmp_path / "events.jsonl").read_bytes()
    (tmp_path / "ticks.jsonl").write_bytes(b"")

    with pytest.raises(DamagedRecordError, match="does not hold each tick once"):
        await resumed(tmp_path)
    assert (tmp_path / "events.jsonl").read_bytes() == before


async def test_half_a_snapshot_that_a_kill_left_is_gone_after_a_resume(tmp_path: Path) -> None:
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, specification(snapshot_ticks=5), wrap=lambda engine: Ending(engine, at=8, by=ended))
    half = Snapshots(tmp_path / "snapshots").path(7).with_suffix(".new")
    half.write_bytes(b"half")

    await resumed(tmp_path)

    assert not half.exists()


async def test_of_the_other_seeds_no_states_and_snapshots_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    with open_population(load_settings(), specification(seeds=2, tiers=True), out=tmp_path / "out") as opened:
        await opened.run(Listener(), StopSignal())

    other = tmp_path / "out" / "replicates" / "seed-1"
    assert [path.name for path in other.rglob("states.*")] == []
    assert (other / "report.json").exists()
    assert (tmp_path / "out" / "states.sqlite").exists()
