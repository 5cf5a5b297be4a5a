"""Populations that cannot go on: behaviours that break, records that are damaged, folders that are full, in use or not there."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap import load_settings
from api.bootstrap.population import open_population
from application.ports.population_engine import TickOutcome
from domain.errors.population import (
    BehaviourError,
    DamagedRecordError,
    InvalidPopulationError,
    MessagesLostError,
    NotEnoughMemoryError,
    PopulationFolderError,
)
from domain.models.deliberation import DeliberationStatus
from domain.models.population import MAX_SHARDS, PopulationSpecification
from infrastructure.population import memory_plan
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.process_usage import cores
from infrastructure.population.snapshots import Snapshots
from tests.command_line import Command, commands
from tests.population.endings import MINDS, EndedHereError, Ending, ended, ticks_in
from tests.population.runs import resumed, run_in
from tests.population.towns import specification, town


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with an empty working folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with commands(capsys) as run:
        yield run


async def test_messages_that_are_lost_end_the_run_and_keep_the_snapshot(tmp_path: Path) -> None:
    def short(outcome: TickOutcome) -> TickOutcome:
        return TickOutcome(
            outcome.tick, outcome.sent, outcome.delivered - 1, 0, 0, outcome.opinion_sum, outcome.alive, 0.0
        )

    with pytest.raises(MessagesLostError) as caught:
        await run_in(tmp_path, specification(), wrap=lambda engine: Ending(engine, at=6, by=short))

    assert caught.value.tick == 6
    assert Snapshots(tmp_path / "snapshots").ticks() == [5]


@pytest.mark.parametrize("workers", ["threads", "processes"])
@pytest.mark.parametrize(
    ("name", "problem"), [("Raising", "ZeroDivisionError: of the test"), ("Leaving", "SystemExit: 3")]
)
async def test_a_behaviour_that_raises_stops_the_tick_and_is_named(
    tmp_path: Path, name: str, problem: str, workers: str
) -> None:
    spec = specification(agents=2_000, behaviour=f"{MINDS}:{name}", workers=workers)
    with pytest.raises(BehaviourError, match=problem) as caught:
        await run_in(tmp_path, spec)
    assert (caught.value.tick, caught.value.shard) == (7, 1)
    assert Snapshots(tmp_path / "snapshots").ticks() == [6]


@pytest.mark.parametrize("what", ["shape", "nan", "1.5", "-0.1", "text"])
async def test_a_behaviour_that_answers_no_opinions_stops_the_tick(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARELESS", what)
    with pytest.raises(BehaviourError) as caught:
        await run_in(tmp_path, specification(behaviour=f"{MINDS}:Careless", shards=1))
    assert (caught.value.tick, caught.value.shard) == (7, 0)
    assert caught.value.agent == (3 if what not in {"shape", "text"} else 0)
    assert ticks_in(tmp_path) == list(range(1, 7))


@pytest.mark.parametrize("name", ["tests.population.nowhere:X", f"{MINDS}:Nobody", "json:JSONDecoder"])
def test_a_behaviour_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidPopulationError), town(tmp_path, specification(behaviour=name)):
        pass


async def test_a_damaged_snapshot_is_refused_and_the_last_good_one_offered(tmp_path: Path) -> None:
    spec = specification(ticks=30, snapshot_ticks=5)
    whole = await run_in(tmp_path / "whole", spec)
    out = tmp_path / "cut"
    with pytest.raises(EndedHereError):
        await run_in(out, spec, wrap=lambda engine: Ending(engine, at=18, by=ended))
    path = Snapshots(out / "snapshots").path(15)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)

    with pytest.raises(DamagedRecordError) as caught:
        await resumed(out)
    assert caught.value.last_good_tick == 10
    again = await resumed(out, from_tick=10)
    assert again.result["state_hash"] == whole.result["state_hash"]
    assert ticks_in(out) == list(range(1, 31))


async def test_a_damaged_event_log_is_refused_and_the_last_good_snapshot_offered(tmp_path: Path) -> None:
    spec = specification(ticks=30, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=18, by=ended))
    log = tmp_path / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[12] = lines[12].replace(b'"sent": 300', b'"sent": 301')
    log.write_bytes(b"".join(lines))

    with pytest.raises(DamagedRecordError) as caught:
        await resumed(tmp_path)
    assert caught.value.last_good_tick == 10
    assert (await resumed(tmp_path, from_tick=10)).status is DeliberationStatus.COMPLETED
    assert ticks_in(tmp_path) == list(range(1, 31))


async def test_an_unfinished_population_is_not_written_over(tmp_path: Path) -> None:
    spec = specification()
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=4, by=ended))
    with pytest.raises(PopulationFolderError, match="unfinished"):
        await run_in(tmp_path, spec)
    await resumed(tmp_path)
    assert (await run_in(tmp_path, specification(seed=9))).status is DeliberationStatus.COMPLETED


def test_a_folder_without_a_population_is_not_resumed_from(tmp_path: Path) -> None:
    with pytest.raises(PopulationFolderError, match="holds no population"):
        PopulationFolder(tmp_path / "nowhere", existing=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_in_use_is_not_taken(tmp_path: Path) -> None:
    folder = PopulationFolder(tmp_path)
    try:
        with pytest.raises(PopulationFolderError, match="in use"):
            PopulationFolder(tmp_path)
    finally:
        folder.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run --agents 50 --ticks 2 --out file", "'file' is a file, or lies in one. Name a folder."),
        ("run --agents 50 --ticks 2 --out file/x", "'file/x' is a file, or lies in one. Name a folder."),
        (
            "run --agents 50 --ticks 2 --out /proc/x",
            "'/proc/x' cannot be written (No such file or directory). Make room",
        ),
        ("resume nowhere", "'nowhere' holds no population"),
        ("resume file", "'file' holds no population"),
        ("export nowhere", "'nowhere' holds no readable population.json"),
    ],
)
def test_a_folder_that_cannot_be_used_is_a_usage_error_before_anything_begins(
    conclave: Command, words: str, said: str
) -> None:
    Path("file").touch()
    ended = conclave("population", *words.split())
    assert (ended.code, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "resumed from" not in ended.stderr


async def test_a_folder_that_is_full_says_so_and_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specification(ticks=12, snapshot_ticks=5)

    def full(self: Snapshots, tick: int, columns: object) -> None:
        if tick == 10:
            raise PopulationFolderError(folder="x", problem="took no snapshot", remedy="Make room.")
        write(self, tick, columns)  # type: ignore[arg-type]

    write = Snapshots.write
    with monkeypatch.context() as patch:
        patch.setattr(Snapshots, "write", full)
        with pytest.raises(PopulationFolderError):
            await run_in(tmp_path, spec)

    assert (await resumed(tmp_path)).status is DeliberationStatus.COMPLETED
    assert ticks_in(tmp_path) == list(range(1, 13))


@pytest.mark.parametrize("spec", [specification(ticks=60, snapshot_ticks=5), specification(agents=1_000, ticks=9)])
async def test_a_disk_that_takes_no_more_ends_the_run_and_loses_nothing_before(
    tmp_path: Path, spec: PopulationSpecification
) -> None:
    """The first is ended by its ticks, the second by its first snapshot."""
    whole = await run_in(tmp_path / "whole", spec)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(PopulationFolderError, match="Make room there"):
            await run_in(tmp_path / "cut", spec)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "cut" / "report.json").exists()

    assert (await resumed(tmp_path / "cut")).result["state_hash"] == whole.result["state_hash"]
    assert ticks_in(tmp_path / "cut") == list(range(1, spec.ticks + 1))


@pytest.mark.parametrize("wrong", [float("nan"), 1.5, -0.25])
async def test_a_snapshot_with_what_is_no_opinion_is_refused_and_the_one_before_it_offered(
    tmp_path: Path, wrong: float
) -> None:
    with pytest.raises(EndedHereError):
        await run_in(
            tmp_path,
            specification(ticks=30, snapshot_ticks=5),
            wrap=lambda engine: Ending(engine, at=13, by=ended),
        )
    snapshots = Snapshots(tmp_path / "snapshots")
    columns = snapshots.read(10)
    columns["opinion"][3] = wrong
    snapshots.write(10, columns)

    with pytest.raises(DamagedRecordError, match="none from 0 to 1") as caught:
        await resumed(tmp_path)
    assert caught.value.last_good_tick == 5


async def test_what_is_left_of_the_description_is_not_run(tmp_path: Path) -> None:
    await run_in(tmp_path, specification())
    about = (tmp_path / "population.json").read_text()
    for damaged in ("", "{", "[]", '{"specification": 7}', about.replace('"bound": 0.2', '"bound": NaN')):
        (tmp_path / "population.json").write_text(damaged)
        with pytest.raises(PopulationFolderError, match=r"no readable population\.json"):
            await resumed(tmp_path)


async def test_more_shards_than_cores_share_them(tmp_path: Path) -> None:
    few = await run_in(tmp_path / "few", specification(agents=2_000, ticks=2))
    many = await run_in(tmp_path / "many", specification(agents=2_000, ticks=2, shards=MAX_SHARDS))
    assert many.result["shards"] == MAX_SHARDS
    workers: Any = many.result["workers"]
    assert workers["count"] <= cores()
    assert many.result["state_hash"] == few.result["state_hash"]


def test_too_little_memory_says_how_much_is_missing_and_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: 512 << 20)
    large = specification(agents=1_000_000, state_bytes=1_024)
    with pytest.raises(NotEnoughMemoryError) as caught, open_population(load_settings(), large, out=tmp_path / "out"):
        pass
    error = caught.value
    assert error.available_bytes == 512 << 20 < error.needed_bytes
    assert f"{error.needed_bytes / 2**30:.2f} GiB and 0.50 GiB are free" in str(error)
    assert f"{error.fits_agents} agents fit" in str(error)
    assert not (tmp_path / "out").exists()
    with open_population(
        load_settings(), specification(agents=error.fits_agents * 99 // 100, state_bytes=1_024), out=tmp_path / "out"
    ):
        pass


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "--shards=0"), 2, "--shards"),
        (("run", "--shards=1025"), 2, "--shards must be a whole number from 1 to 1024"),
        (("run", "--bound=nan"), 2, "--bound"),
        (("run", "--tiers", "--hot-percent=60", "--warm-percent=60"), 2, "--warm-percent and --hot-percent leave"),
        (("run", "--command=2:bound=9"), 2, "--command must give a value"),
        (
            ("run", "--agents=10", "--degree=2", "--behaviour=nowhere:X"),
            2,
            "--behaviour cannot be made from 'nowhere:X'",
        ),
        (("run", "--seeds=0"), 2, "--seeds must be a whole number from 1 to 100"),
        (("run", "--agents=10000000", "--state-bytes=16384"), 2, "agents fit"),
        (("run", "--agents=10", "--degree=2", "--graph=nowhere.txt"), 2, "nowhere.txt"),
        (("run", "--from=nobody", "--agents=10", "--degree=2"), 2, "no such deliberation"),
        (("resume", "."), 2, "holds no population"),
        (("export", "."), 2, "no readable population.json"),
        (("export", ".", "--format=xml"), 2, "--format must be one of parquet, arrow, csv"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_exit_code(
    conclave: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = conclave("population", *words)
    assert (ended.code, said in " ".join(ended.stderr.split())) == (code, True), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        (b"0 1\n3 77\n", "edge 2 of 'edges' names agent 77"),
        (b"# from, to\n0 1\n\n1 nan\n", "edge 2 of 'edges' is no pair of numbers"),
        (b"0,1\n1,inf\n", "edge 2 of 'edges' is no pair of numbers"),
        (b"0 1\n1 99999999999999999999\n", "edge 2 of 'edges' is no pair of numbers"),
        (b"\x00\xff\xfe garbage", "no list of edges"),
        (b"0 1\n2\n", "edge 2 of 'edges' is no pair of numbers"),
        (b"0 1 2\n1 2 3\n", "edge 1 of 'edges' has 3 numbers instead of two"),
        (b"", "holds no edge"),
    ],
)
def test_a_file_of_no_edges_is_refused_with_its_line(conclave: Command, edges: bytes, said: str) -> None:
    Path("edges").write_bytes(edges)
    ended = conclave("population", "run", "--agents=50", "--graph=edges", "--kernel=numpy")
    assert (ended.code, said in " ".join(ended.stderr.split())) == (2, True), ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_behaviour_that_breaks_is_told_with_its_agent_and_shard(conclave: Command) -> None:
    words = ("--agents=2000", "--shards=2", "--ticks=10", "--kernel=numpy", f"--behaviour={MINDS}:Raising")
    ended = conclave("population", "run", *words)
    told = " ".join(ended.stderr.split())
    assert ended.code == 1
    assert "failed at tick 7 in shard 1 at agent" in told
    assert "ZeroDivisionError: of the test" in told
    assert Snapshots(Path("population/snapshots")).ticks()[-1] == 6
