"""Populations from their first tick to their report: what is written, paced, stopped and halted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from application.ports.population_engine import PopulationEngine, TickOutcome
from application.services.stop_signal import StopReason, StopSignal
from domain.models.deliberation import DeliberationStatus
from infrastructure.population.snapshots import Snapshots
from tests.population.endings import MINDS, Ending, command, ended, ticks_in
from tests.population.runs import run_in
from tests.population.towns import opinions_of, specification, ticked, town


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
    assert ticks_in(tmp_path) == list(range(1, 11))
    assert all(json.loads(line)["tick_ms"] > 0 for line in (tmp_path / "ticks.jsonl").read_text().splitlines())


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


async def test_paced_ticks_begin_an_interval_apart(tmp_path: Path) -> None:
    began = []

    def seen(engine: PopulationEngine) -> PopulationEngine:
        class Watched(Ending):
            def tick(self, number: int) -> TickOutcome:
                began.append(clock())
                return super().tick(number)

        return Watched(engine, at=-1, by=ended)

    from time import monotonic as clock

    await run_in(tmp_path, specification(ticks=5, tick_interval_s=0.05), wrap=seen)

    assert began[-1] - began[0] >= 4 * 0.05 - 0.01


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


def test_a_full_inbox_refuses_and_says_how_often(tmp_path: Path) -> None:
    star = tmp_path / "star.txt"
    star.write_text("\n".join(f"0 {other}" for other in range(1, 60)))
    spec = specification(agents=60, behaviour=f"{MINDS}:Exact", graph=str(star), inbox_limit=10)
    with town(tmp_path, spec) as engine:
        (outcome,) = ticked(engine, 1)
        assert (outcome.sent, outcome.delivered, outcome.refused) == (60, 11, 49)
        assert opinions_of(engine)[0] == pytest.approx(0.1)


def test_the_report_for_a_reader_says_that_nobody_is_real(tmp_path: Path) -> None:
    ended = command("population", "run", "--agents=200", "--ticks=3", "--kernel=numpy", folder=tmp_path)
    assert ended.returncode == 0
    assert "simulated" in ended.stdout
    assert (tmp_path / "population" / "report.json").exists()
