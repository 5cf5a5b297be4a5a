"""What is measured of buses: the sums over all runs, which only grow, whatever becomes of the files they are read from."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from domain.models.deliberation import DeliberationStatus
from domain.models.message import LATENCY_BOUNDS_S, BusStats
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_record import FileRunRecord
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.telemetry import followed_runs
from infrastructure.telemetry.bus_metrics import TRANSPORTS, BusCounts, BusSample
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

AT = datetime(2026, 5, 1, tzinfo=UTC)
COMPLETED = DeliberationStatus.COMPLETED


def stats(transport: str, sent: int, **fields: Any) -> BusStats:
    """Every message took 2 ms."""
    histogram = {bound: sent if bound >= 0.002 else 0 for bound in LATENCY_BOUNDS_S}
    return BusStats(transport, sent=sent, latency_histogram=histogram, latency_sum_s=sent * 0.002, **fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def a_record(folder: Path, number: int = 0) -> FileRunRecord:
    at = AT + timedelta(seconds=number)
    return FileRunRegistry(folder, keep=5).register(Run(new_run_id(at), RunKind.SWARM, COMPLETED, {}, at))


def put(record: FileRunRecord, *counted: BusStats) -> None:
    for each in counted:
        record.count(each)
    record._write_waiting()


def end(record: FileRunRecord) -> str:
    record.end(COMPLETED, at=AT)
    record.close()
    return record.id


def sums(counts: BusCounts) -> dict[str, tuple[int, int, int]]:
    return {name: (each.messages, each.dead_letters, each.queued) for name, each in counts.samples().items()}


def test_without_runs_every_transport_stands_there_with_nothing(folder: Path) -> None:
    assert sums(BusCounts(folder)) == dict.fromkeys(TRANSPORTS, (0, 0, 0))


def test_the_counts_of_all_runs_are_summed_up_by_transport(folder: Path) -> None:
    first, second = a_record(folder), a_record(folder, 1)
    put(first, stats("memory", 10, dead_letters=1, queued={"a": 2, "b": 3}), stats("redis", 5))
    put(second, stats("memory", 100, queued={"c": 4}))
    counts = BusCounts(folder)
    assert sums(counts) == {"memory": (110, 1, 9), "redis": (5, 0, 0), "file": (0, 0, 0), "shm": (0, 0, 0)}
    end(first), end(second)
    assert sums(counts)["memory"] == (110, 1, 0)
    assert sums(BusCounts(folder))["memory"] == (110, 1, 0)


def test_counts_that_grow_are_added_once(folder: Path) -> None:
    record = a_record(folder)
    counts = BusCounts(folder)
    for sent in (10, 10, 25, 70):
        put(record, stats("file", sent))
        assert sums(counts)["file"][0] == sent
        assert sums(counts)["file"][0] == sent
    put(record, stats("file", 80))
    end(record)
    assert sums(counts)["file"][0] == 80


def test_nothing_goes_down_when_runs_are_removed_or_their_counts_fall(folder: Path) -> None:
    first, second = a_record(folder), a_record(folder, 1)
    put(first, stats("shm", 10))
    put(second, stats("shm", 20))
    counts = BusCounts(folder)
    assert sums(counts)["shm"][0] == 30
    put(second, stats("shm", 5))
    assert sums(counts)["shm"][0] == 30
    put(second, stats("shm", 8))
    assert sums(counts)["shm"][0] == 33
    shutil.rmtree(folder / end(first))
    end(second)
    assert sums(counts)["shm"][0] == 33
    assert counts._known.keys() == {second.id}
    shutil.rmtree(folder)
    assert sums(counts)["shm"][0] == 33


def test_latencies_are_summed_by_bound(folder: Path) -> None:
    record = a_record(folder)
    put(record, stats("memory", 3))
    sample = BusCounts(folder).samples()["memory"]
    buckets = dict(sample.buckets())
    assert (buckets["0.001"], buckets["0.0025"], buckets["+Inf"]) == (0.0, 3.0, 3.0)
    assert sample.latency_sum_s == pytest.approx(0.006)
    end(record)


def test_latencies_by_other_bounds_count_below_the_next_one_of_ours(folder: Path) -> None:
    record = a_record(folder)
    put(record, BusStats("memory", latency_histogram={0.003: 2, 0.2: 5, 99.0: 6, float("inf"): 7}))
    buckets = dict(BusCounts(folder).samples()["memory"].buckets())
    assert (buckets["0.0025"], buckets["0.005"], buckets["0.5"], buckets["10.0"], buckets["+Inf"]) == (0, 2, 5, 5, 7)
    end(record)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"memory": 7}',
        b'{"memory": {"sent": -1, "dead_letters": "x", "queued": true, "latency_histogram": [], "latency_sum_s": -1}}',
        b'{"memory": {"sent": 1e400}}',
        b'{"memory": {"sent": ' + b"9" * 50 + b', "latency_histogram": {"x": 1, "nan": 2, "inf": -3}}}',
        b'{"' + b"x" * 100_000 + b'": 1}',
    ],
)
def test_garbage_counts_nothing(folder: Path, content: bytes) -> None:
    record = a_record(folder)
    (folder / record.id / "bus.json").write_bytes(content)
    counts = BusCounts(folder)
    assert set(sums(counts).values()) == {(0, 0, 0)}
    assert counts.samples()["memory"].buckets()[-1] == ("+Inf", 0.0)
    end(record)


def test_what_is_no_run_and_links_are_passed_over(folder: Path, tmp_path: Path) -> None:
    record = a_record(folder)
    put(record, stats("memory", 7))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / end(record), elsewhere)
    (folder / new_run_id(AT + timedelta(seconds=5))).symlink_to(elsewhere)
    (folder / new_run_id(AT + timedelta(seconds=6))).write_text("")
    (folder / "other").mkdir()
    assert sums(BusCounts(folder))["memory"][0] == 7


def test_a_run_that_has_ended_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = a_record(folder)
    put(record, stats("memory", 7))
    end(record)
    counts = BusCounts(folder)
    counts.samples()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(followed_runs, "read_file", refuse)
    assert sums(counts)["memory"][0] == 7


def test_traffic_says_the_bucket_in_which_a_quantile_lies(folder: Path) -> None:
    assert [each.p50_s for each in BusCounts(folder).traffic()] == [None] * len(TRANSPORTS)
    put(a_record(folder), stats("memory", 7, dead_letters=2))
    memory, *others = BusCounts(folder).traffic()
    assert (memory.transport, memory.messages, memory.dead_letters) == ("memory", 7, 2)
    bound = min(bound for bound in LATENCY_BOUNDS_S if bound >= 0.002)
    assert memory.mean_s == pytest.approx(0.002)
    assert (memory.p50_s, memory.p95_s) == (bound, bound)
    assert {each.messages for each in others} == {0}


def test_the_metrics_of_the_contract_are_there_from_the_start(folder: Path) -> None:
    metrics = PrometheusMetrics(version="1")
    metrics.watch_buses(BusCounts(folder).samples)
    found = {
        (s.name, s.labels.get("le", "")): s.labels["transport"]
        for f in _scrape(metrics)
        for s in f.samples
        if "_bus_" in s.name
    }
    names = {name for name, _ in found}
    assert names == {
        "conclave_bus_messages_total",
        "conclave_bus_dead_letters_total",
        "conclave_bus_queued_messages",
        "conclave_bus_latency_seconds_bucket",
        "conclave_bus_latency_seconds_count",
        "conclave_bus_latency_seconds_sum",
    }
    transports = {
        s.labels["transport"] for f in _scrape(metrics) for s in f.samples if s.name == "conclave_bus_messages_total"
    }
    assert transports == {"memory", "redis", "file", "shm"}


def test_a_scrape_shows_what_was_counted() -> None:
    metrics = PrometheusMetrics(version="1")
    sample = BusSample(messages=7, dead_letters=2, queued=3, latency_sum_s=1.5)
    sample.latencies[0] = 7
    metrics.watch_buses(lambda: {"memory": sample})
    found = {s.name: s.value for f in _scrape(metrics) for s in f.samples if s.labels.get("transport") == "memory"}
    assert found["conclave_bus_messages_total"] == 7
    assert found["conclave_bus_dead_letters_total"] == 2
    assert found["conclave_bus_queued_messages"] == 3
    assert found["conclave_bus_latency_seconds_count"] == 7
    assert found["conclave_bus_latency_seconds_sum"] == 1.5


def _scrape(metrics: PrometheusMetrics) -> Any:
    return list(parse_text(metrics.render()[0].decode()))
