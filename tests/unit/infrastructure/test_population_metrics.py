"""What is measured of populations: the sums over all runs, which only grow, and who is under way."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from domain.models.deliberation import DeliberationStatus
from domain.models.population_counts import TICK_BOUNDS_S, PopulationCounts
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_record import FileRunRecord
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.telemetry.population_metrics import PopulationSums
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

AT = datetime(2026, 5, 1, tzinfo=UTC)
COMPLETED = DeliberationStatus.COMPLETED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def a_record(folder: Path, number: int = 0) -> FileRunRecord:
    at = AT + timedelta(seconds=number)
    return FileRunRegistry(folder, keep=5).register(Run(new_run_id(at), RunKind.POPULATION, COMPLETED, {}, at))


def counted(ticks: int, *, agents: int = 10, tick_s: float = 0.003) -> PopulationCounts:
    counts = PopulationCounts()
    for _ in range(ticks):
        counts.add(delivered=agents, expired=1, refused=0, alive=agents, tick_s=tick_s)
    return counts


def put(record: FileRunRecord, counts: PopulationCounts) -> None:
    record.tally(counts)
    record._write_waiting()


def end(record: FileRunRecord) -> None:
    record.end(COMPLETED, at=AT)
    record.close()


def scraped(sums: PopulationSums) -> dict[str, float]:
    metrics = PrometheusMetrics(version="1")
    metrics.watch_populations(sums.sample)
    return {
        s.name + "".join(f"{{{value}}}" for value in s.labels.values()): s.value
        for family in parse_text(metrics.render()[0].decode())
        for s in family.samples
        if "_population_" in s.name
    }


def test_without_runs_every_metric_stands_there_with_nothing(folder: Path) -> None:
    found = scraped(PopulationSums(folder))
    assert set(found.values()) == {0.0}
    assert {name.partition("{")[0] for name in found} == {
        "conclave_population_running",
        "conclave_population_agents",
        "conclave_population_ticks_total",
        "conclave_population_messages_total",
        "conclave_population_tick_seconds_bucket",
        "conclave_population_tick_seconds_count",
        "conclave_population_tick_seconds_sum",
    }


def test_a_scrape_sums_up_all_populations_and_who_is_under_way(folder: Path) -> None:
    first, second = a_record(folder), a_record(folder, 1)
    sums = PopulationSums(folder)
    put(first, counted(3))
    put(second, counted(2, agents=100, tick_s=0.2))
    found = scraped(sums)
    assert (found["conclave_population_running"], found["conclave_population_agents"]) == (2, 110)
    assert found["conclave_population_ticks_total"] == 5
    assert found["conclave_population_messages_total{delivered}"] == 230
    assert found["conclave_population_messages_total{expired}"] == 5
    assert found["conclave_population_tick_seconds_bucket{0.005}"] == 3
    assert found["conclave_population_tick_seconds_bucket{+Inf}"] == 5
    assert found["conclave_population_tick_seconds_sum"] == pytest.approx(0.409)
    put(first, counted(4))
    end(first)
    found = scraped(sums)
    assert (found["conclave_population_running"], found["conclave_population_agents"]) == (1, 100)
    assert found["conclave_population_ticks_total"] == 6
    end(second)
    assert scraped(PopulationSums(folder))["conclave_population_ticks_total"] == 6


def test_nothing_goes_down_when_runs_are_removed_or_their_counts_fall(folder: Path) -> None:
    record = a_record(folder)
    sums = PopulationSums(folder)
    put(record, counted(9))
    assert sums.sample().ticks == 9
    put(record, counted(2))
    assert sums.sample().ticks == 9
    put(record, counted(5))
    assert sums.sample().ticks == 12
    end(record)
    shutil.rmtree(folder)
    assert sums.sample().ticks == 12


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"ticks": -1, "delivered": "x", "agents": true, "tick_seconds": [1], "tick_sum_s": -1}',
        b'{"ticks": 1e400, "tick_seconds": {"a": 1}}',
        b'{"tick_seconds": ' + str(["x"] * len(TICK_BOUNDS_S)).replace("'", '"').encode() + b"}",
    ],
)
def test_garbage_counts_nothing(folder: Path, content: bytes) -> None:
    record = a_record(folder)
    (folder / record.id / "population.json").write_bytes(content)
    sample = PopulationSums(folder).sample()
    assert (sample.ticks, sample.agents, sum(sample.messages.values()), sum(sample.tick_seconds)) == (0, 0, 0, 0)
    end(record)


def test_a_run_without_a_population_is_none_under_way(folder: Path) -> None:
    record = a_record(folder)
    sample: Any = PopulationSums(folder).sample()
    assert sample.running == 0
    end(record)
