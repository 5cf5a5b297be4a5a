"""Populations from their first tick to their report: resumed after kills, stopped, broken and damaged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from application.ports.population_engine import PopulationEngine, TickOutcome
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.population import (
    BehaviourError,
    DamagedRecordError,
    InvalidPopulationError,
    MessagesLostError,
    PopulationDivergedError,
    PopulationFolderError,
    ShardLostError,
)
from domain.models.deliberation import DeliberationStatus
from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.population_folder import PopulationFolder
from infrastructure.population.snapshots import Snapshots
from tests.population.runs import Listener, resumed, run_in
from tests.population.towns import opinions_of, specification, ticked, town

MINDS = "tests.population.minds"


class EndedHereError(Exception):
    """The test ends the run, as a kill would."""


class Ending:
    """An engine that ends the run, stops it, or lies, once it has taken a certain tick."""

    def __init__(self, engine: PopulationEngine, *, at: int, by: Any) -> None:
        self._engine, self._at, self._by = engine, at, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def tick(self, number: int) -> TickOutcome:
        outcome = self._engine.tick(number)
        return outcome if number != self._at else self._by(outcome)


def _ended(_: TickOutcome) -> TickOutcome:
    raise EndedHereError


def _ticks(out: Path) -> list[int]:
    return [json.loads(line)["tick"] for line in (out / "ticks.jsonl").read_text().splitlines()]


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    return dict(result)


async def test_a_run_writes_every_field_of_the_contract(tmp_path: Path) -> None:
    ending = await run_in(tmp_path, specification(agents=2_000))
    report = json.loads((tmp_path / "report.json").read_text())

    assert ending.status is DeliberationStatus.COMPLETED
    assert report == ending.result
    assert report["simulated"] is True
    assert (report["agents"], report["shards"], report["ticks"], report["seed"]) == (2_000, 2, 10, 0)
    assert (report["engine"], report["kernel"]) == ("local", "numpy")
    assert report["messages_routed"] == 20_000
    assert report["messages_lost"] == 0
    assert set(report["tick_ms"]) == {"mean", "p50", "p95", "p99", "max"}
    assert report["tick_ms"]["p50"] <= report["tick_ms"]["p99"] <= report["tick_ms"]["max"]
    total_s = report["tick_ms"]["mean"] * 10 / 1_000
    assert report["messages_per_second"] == pytest.approx(20_000 / total_s)
    assert report["delivery_us"]["same_shard"]["p50"] > 0
    assert report["delivery_us"]["cross_shard"]["p99"] > 0
    assert set(report["state_access_us"]) == {"hot", "warm", "cold"}
    assert set(report["hot_hit_rate"]) == {"zipf_1.2", "uniform"}
    assert report["peak_rss_bytes"] > 10_000_000
    assert 0 <= report["cpu_fraction"] <= 1.5
    assert len(report["state_hash"]) == 64
    for when in ("initial", "final"):
        assert len(report["opinions"][when]["histogram"]) == 100
        assert sum(report["opinions"][when]["histogram"]) == 2_000
    assert report["opinions"]["initial"]["variance"] == pytest.approx(1 / 12, abs=0.01)
    assert _ticks(tmp_path) == list(range(1, 11))
    assert all(json.loads(line)["tick_ms"] > 0 for line in (tmp_path / "ticks.jsonl").read_text().splitlines())


@pytest.mark.parametrize("killed_at", [3, 20, 21, 39])
async def test_a_population_ended_at_any_tick_comes_to_the_same_end(tmp_path: Path, killed_at: int) -> None:
    spec = specification(ticks=40, snapshot_ticks=10)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=killed_at, by=_ended))

    again = await resumed(tmp_path / "cut")

    assert again.result["state_hash"] == whole.result["state_hash"]
    assert again.result["messages_routed"] == whole.result["messages_routed"]
    assert again.result["opinions"] == whole.result["opinions"]
    assert _ticks(tmp_path / "cut") == list(range(1, 41))


async def test_a_line_that_a_kill_cut_short_is_written_anew(tmp_path: Path) -> None:
    spec = specification(ticks=12, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=9, by=_ended))
    for name in ("ticks.jsonl", "events.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"tick": 9, "ti')

    await resumed(tmp_path)

    assert _ticks(tmp_path) == list(range(1, 13))


async def test_a_stop_keeps_what_was_counted_and_can_be_resumed(tmp_path: Path) -> None:
    spec = specification(ticks=1_000_000)
    stop = StopSignal()

    def stopped(outcome: TickOutcome) -> TickOutcome:
        stop.set(StopReason.CANCELLED)
        return outcome

    ending = await run_in(tmp_path, spec, stop=stop, wrap=lambda engine: Ending(engine, at=8, by=stopped))

    assert ending.status is DeliberationStatus.CANCELLED
    assert ending.result["ticks"] == 8
    assert Snapshots(tmp_path / "snapshots").ticks() == [8]
    assert not (tmp_path / "report.json").exists()


async def test_a_halted_run_ends_without_the_hash_that_takes_long(tmp_path: Path) -> None:
    stop = StopSignal()

    def halted(outcome: TickOutcome) -> TickOutcome:
        stop.set(StopReason.HALTED)
        return outcome

    ending = await run_in(tmp_path, specification(), stop=stop, wrap=lambda engine: Ending(engine, at=2, by=halted))

    assert ending.status is DeliberationStatus.HALTED
    assert ending.result["state_hash"] is None


async def test_messages_that_are_lost_end_the_run_and_keep_the_snapshot(tmp_path: Path) -> None:
    def short(outcome: TickOutcome) -> TickOutcome:
        return TickOutcome(
            outcome.tick, outcome.sent, outcome.delivered - 1, 0, 0, outcome.opinion_sum, outcome.alive, 0.0
        )

    with pytest.raises(MessagesLostError) as caught:
        await run_in(tmp_path, specification(), wrap=lambda engine: Ending(engine, at=6, by=short))

    assert caught.value.tick == 6
    assert Snapshots(tmp_path / "snapshots").ticks() == [5]


async def test_a_repeated_tick_that_comes_out_otherwise_is_not_taken(tmp_path: Path) -> None:
    spec = specification(ticks=20, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=9, by=_ended))
    about = json.loads((tmp_path / "population.json").read_text())
    about["specification"]["bound"] = 0.5
    (tmp_path / "population.json").write_text(json.dumps(about))

    with pytest.raises(PopulationDivergedError) as caught:
        await resumed(tmp_path)
    assert caught.value.tick == 6


async def test_a_lost_shard_process_is_replaced_from_the_last_snapshot(tmp_path: Path) -> None:
    spec = specification(ticks=20, snapshot_ticks=5, workers="processes")
    whole = await run_in(tmp_path / "whole", spec)
    lost = [1, 2]

    def killed(outcome: TickOutcome) -> TickOutcome:
        if lost:
            raise ShardLostError(worker=lost.pop(), problem="was killed")
        return outcome

    listener = Listener()
    ending = await run_in(
        tmp_path / "cut", spec, observer=listener, wrap=lambda engine: Ending(engine, at=13, by=killed)
    )

    assert ending.result["state_hash"] == whole.result["state_hash"]
    assert ending.result["messages_routed"] == whole.result["messages_routed"]
    assert _ticks(tmp_path / "cut") == list(range(1, 21))
    assert [note for note, _ in listener.notes].count("population.shard_lost") == 2


def test_a_killed_shard_process_is_noticed_and_leaves_no_other_behind(tmp_path: Path) -> None:
    spec = specification(behaviour=f"{MINDS}:Average", workers="processes", shards=2)
    with town(tmp_path, spec) as engine:
        ticked(engine, 2)
        first, second = engine.processes
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ShardLostError):
            ticked(engine, 1)
    for process in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("workers", ["threads", "processes"])
async def test_a_behaviour_that_raises_stops_the_tick_and_is_named(tmp_path: Path, workers: str) -> None:
    spec = specification(agents=2_000, behaviour=f"{MINDS}:Raising", workers=workers)
    with pytest.raises(BehaviourError, match="ZeroDivisionError: of the test") as caught:
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
    assert _ticks(tmp_path) == list(range(1, 7))


@pytest.mark.parametrize("name", ["tests.population.nowhere:X", f"{MINDS}:Nobody", "json:JSONDecoder"])
def test_a_behaviour_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidPopulationError), town(tmp_path, specification(behaviour=name)):
        pass


def test_a_behaviour_of_ones_own_does_not_see_how_it_is_sharded(tmp_path: Path) -> None:
    hashes = set()
    for shards, kernel, workers in ((1, "numpy", "threads"), (7, "numpy", "threads"), (24, "numpy", "processes")):
        spec = specification(
            behaviour=f"{MINDS}:Average", agents=950, shards=shards, kernel=kernel, workers=workers, messages=3
        )
        with town(tmp_path, spec) as engine:
            ticked(engine, 4)
            hashes.add(engine.state_hash())
    assert len(hashes) == 1


async def test_bytes_that_agents_keep_outlive_a_kill(tmp_path: Path) -> None:
    spec = specification(behaviour=f"{MINDS}:Remembering", ticks=20, snapshot_ticks=6)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=15, by=_ended))
    assert (await resumed(tmp_path / "cut")).result["state_hash"] == whole.result["state_hash"]


def test_a_full_inbox_refuses_and_says_how_often(tmp_path: Path) -> None:
    star = tmp_path / "star.txt"
    star.write_text("\n".join(f"0 {other}" for other in range(1, 60)))
    spec = specification(agents=60, behaviour=f"{MINDS}:Exact", graph=str(star), inbox_limit=10)
    with town(tmp_path, spec) as engine:
        (outcome,) = ticked(engine, 1)
        assert (outcome.sent, outcome.delivered, outcome.refused) == (60, 11, 49)
        assert opinions_of(engine)[0] == pytest.approx(0.1)


async def test_a_damaged_snapshot_is_refused_and_the_last_good_one_offered(tmp_path: Path) -> None:
    spec = specification(ticks=30, snapshot_ticks=5)
    whole = await run_in(tmp_path / "whole", spec)
    out = tmp_path / "cut"
    with pytest.raises(EndedHereError):
        await run_in(out, spec, wrap=lambda engine: Ending(engine, at=18, by=_ended))
    path = Snapshots(out / "snapshots").path(15)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)

    with pytest.raises(DamagedRecordError) as caught:
        await resumed(out)
    assert caught.value.last_good_tick == 10
    again = await resumed(out, from_tick=10)
    assert again.result["state_hash"] == whole.result["state_hash"]
    assert _ticks(out) == list(range(1, 31))


async def test_a_damaged_event_log_is_refused_and_the_last_good_snapshot_offered(tmp_path: Path) -> None:
    spec = specification(ticks=30, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=18, by=_ended))
    log = tmp_path / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[12] = lines[12].replace(b'"sent": 300', b'"sent": 301')
    log.write_bytes(b"".join(lines))

    with pytest.raises(DamagedRecordError) as caught:
        await resumed(tmp_path)
    assert caught.value.last_good_tick == 10
    assert (await resumed(tmp_path, from_tick=10)).status is DeliberationStatus.COMPLETED
    assert _ticks(tmp_path) == list(range(1, 31))


async def test_an_unfinished_population_is_not_written_over(tmp_path: Path) -> None:
    spec = specification()
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=4, by=_ended))
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
    assert _ticks(tmp_path) == list(range(1, 13))


async def test_paced_ticks_begin_an_interval_apart(tmp_path: Path) -> None:
    began = []

    def seen(engine: PopulationEngine) -> PopulationEngine:
        class Watched(Ending):
            def tick(self, number: int) -> TickOutcome:
                began.append(clock())
                return super().tick(number)

        return Watched(engine, at=-1, by=_ended)

    from time import monotonic as clock

    await run_in(tmp_path, specification(ticks=5, tick_interval_s=0.05), wrap=seen)

    assert began[-1] - began[0] >= 4 * 0.05 - 0.01


def _command(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CONCLAVE_DATA_DIR": str(folder / "data"),
            **environment,
        },
        cwd=folder,
    )


def test_a_process_killed_in_the_middle_of_a_tick_is_resumed_to_the_same_end(tmp_path: Path) -> None:
    words = (
        "--agents=400",
        "--ticks=30",
        "--snapshot-every=10",
        "--kernel=numpy",
        f"--behaviour={MINDS}:Deadly",
        "--json",
    )
    spec = specification(agents=400, behaviour=f"{MINDS}:Deadly")
    with town(tmp_path, spec) as engine:
        ticked(engine, 30)
        whole = engine.state_hash()
    killed = _command("population", "run", *words, "--out=cut", folder=tmp_path, DEADLY="17")
    assert killed.returncode == -signal.SIGKILL
    assert _ticks(tmp_path / "cut") == list(range(1, 17))

    again = _command("population", "resume", "cut", "--json", folder=tmp_path)

    assert again.returncode == 0
    assert json.loads(again.stdout)["state_hash"] == whole
    assert _ticks(tmp_path / "cut") == list(range(1, 31))


def test_sigterm_ends_a_run_that_can_be_resumed_and_leaves_no_process(tmp_path: Path) -> None:
    words = ("--agents=400", "--ticks=1000000", "--kernel=numpy", f"--behaviour={MINDS}:Interrupted", "--json")
    ended = _command("population", "run", *words, "--out=cut", folder=tmp_path, INTERRUPTED="1")

    assert ended.returncode == 128 + signal.SIGTERM
    counted = json.loads(ended.stdout)
    assert counted["ticks"] >= 7
    assert _ticks(tmp_path / "cut") == list(range(1, counted["ticks"] + 1))
    assert Snapshots(tmp_path / "cut" / "snapshots").ticks()[-1] == counted["ticks"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "--shards=0"), 2, "--shards"),
        (("run", "--agents=10000000", "--state-bytes=16384"), 2, "agents fit"),
        (("run", "--agents=10", "--degree=2", "--graph=nowhere.txt"), 2, "nowhere.txt"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_exit_code(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = _command("population", *words, folder=tmp_path)
    assert (ended.returncode, said in ended.stderr) == (code, True)
    assert "Traceback" not in ended.stderr


def test_the_report_for_a_reader_says_that_nobody_is_real(tmp_path: Path) -> None:
    ended = _command("population", "run", "--agents=200", "--ticks=3", "--kernel=numpy", folder=tmp_path)
    assert ended.returncode == 0
    assert "simulated" in ended.stdout
    assert (tmp_path / "population" / "report.json").exists()


def test_an_engine_takes_over_a_snapshot_of_all_columns(tmp_path: Path) -> None:
    spec: PopulationSpecification = specification()
    with town(tmp_path, spec) as engine:
        ticked(engine, 3)
        engine.slab.retire(np.arange(40, dtype=np.uint32))
        engine.slab.spawn(10, tick=3, kind=2)
        engine.refresh()
        engine.save(3)
        engine.settle()
        ticked(engine, 2)
        expected = engine.state_hash()
    again = LocalEngine(spec, snapshots=Snapshots(tmp_path / "snapshots"), tick=3)
    try:
        ticked(again, 2)
        assert again.state_hash() == expected
        assert int(again.columns.type[:40].sum()) == 20
    finally:
        again.close()
