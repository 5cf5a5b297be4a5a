"""How a run went along, read from its folder: incrementally, within bounds, and past whatever else lies there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from application.ports.run_series import MAX_SERIES_POINTS, RunMark, RunSeries
from domain.models.deliberation import DeliberationStatus
from domain.models.run import Run, RunKind
from domain.models.run_event import new_run_id
from infrastructure.runs.file_run_registry import FileRunRegistry
from infrastructure.runs.file_run_series import FileRunSeries
from infrastructure.runs.followed_lines import MAX_LINE_BYTES

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Site:
    """A run's folder, and the reader over it."""

    def __init__(self, root: Path, kind: RunKind, **options: Any) -> None:
        self.run = Run(new_run_id(AT), kind, DeliberationStatus.RUNNING, started_at=AT)
        self.folder = root / "runs" / self.run.id
        self.out = self.folder / "out"
        self.out.mkdir(parents=True)
        self.reader = FileRunSeries(root / "runs", **options)

    def write(self, name: str, rows: Iterable[Mapping[str, Any] | str], *, end: str = "\n") -> None:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        with (self.out / name).open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + end)

    def read(self) -> RunSeries:
        return self.reader.read(self.run)


def tick(number: int, **more: Any) -> dict[str, Any]:
    return {"tick": number, "tick_ms": 2.0, "messages": 1_000, "mean": 0.5, "agents": 1_000, **more}


def test_a_rate_over_ticks_is_all_messages_over_all_their_time(tmp_path: Path) -> None:
    population = Site(tmp_path, RunKind.POPULATION)
    population.write("ticks.jsonl", [tick(1, tick_ms=1.0, messages=100), tick(2, tick_ms=9.0, messages=100)])
    rate = population.read().summaries["messages_per_second"]
    assert rate.mean == pytest.approx(200 / 0.010)
    assert rate.least == pytest.approx(100 / 0.009)
    assert rate.greatest == pytest.approx(100 / 0.001)


def sample(number: int, mean: float) -> dict[str, Any]:
    return {"tick": number, "stride": 1, "mean": mean, "variance": 0.08, "histogram": [5, 0, 5]}


def cycle(number: int, *, crashes: int = 0, injected: int = 0) -> dict[str, Any]:
    return {
        "type": "coordination_cycle",
        "cycle": number,
        "duration": 10.0 + number,
        "responseRate": 0.5,
        "memoryStats": {"average": 1024 * 1024},
        "totals": {"crashes": crashes, "injected": injected},
    }


@pytest.fixture
def population(tmp_path: Path) -> Site:
    return Site(tmp_path, RunKind.POPULATION)


def test_ticks_become_lines_with_their_sums(population: Site) -> None:
    population.write("ticks.jsonl", [tick(1), tick(2, tick_ms=4.0)])
    found = population.read()
    assert (found.axis, list(found.positions), found.rows, found.is_whole) == ("tick", [1, 2], 2, True)
    assert found.lines["tick_ms"] == [2.0, 4.0]
    assert found.lines["messages_per_second"] == [500_000.0, 250_000.0]
    assert (found.summaries["tick_ms"].greatest, found.summaries["tick_ms"].last) == (4.0, 4.0)


def test_a_later_look_goes_on_where_the_one_before_ended(population: Site) -> None:
    population.write("ticks.jsonl", [tick(1)])
    assert population.read().rows == 1
    population.write("ticks.jsonl", [tick(2), tick(3)])
    assert list(population.read().positions) == [1, 2, 3]


def test_a_line_that_is_half_written_is_read_once_it_is_whole(population: Site) -> None:
    whole = json.dumps(tick(2))
    population.write("ticks.jsonl", [tick(1)])
    population.write("ticks.jsonl", [whole[:20]], end="")
    assert list(population.read().positions) == [1]
    population.write("ticks.jsonl", [whole[20:]])
    assert list(population.read().positions) == [1, 2]


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "no json",
        "[1, 2]",
        '{"tick": "3", "tick_ms": 1}',
        '{"tick": NaN, "tick_ms": 1}',
        '{"tick": 1e400, "tick_ms": 1}',
        f'{{"tick": 1{"0" * 400}, "tick_ms": 1}}',
        '{"tick": true}',
        "\x00\x1b[2J",
        "[" * 50_000,
        "x" * (2 * MAX_LINE_BYTES),
        "y" * (9 * MAX_LINE_BYTES),
    ],
)
def test_what_is_no_row_is_passed_over(population: Site, garbage: str) -> None:
    population.write("ticks.jsonl", [tick(1), garbage, tick(2)])
    assert list(population.read().positions) == [1, 2]


def test_the_end_of_a_line_that_is_too_long_is_no_row_even_where_it_looks_like_one(population: Site) -> None:
    population.write("ticks.jsonl", ["x" * 256 * 1024 + json.dumps(tick(1)), tick(2)])
    assert list(population.read().positions) == [2]


def test_a_value_that_is_no_number_leaves_a_gap(population: Site) -> None:
    population.write("ticks.jsonl", [tick(1), tick(2, tick_ms="soon"), tick(3)])
    assert population.read().lines["tick_ms"] == [2.0, None, 2.0]


def test_a_number_that_no_float_holds_leaves_a_gap_and_no_distribution(population: Site) -> None:
    huge = 10**400
    population.write("ticks.jsonl", [tick(1), tick(2, tick_ms=huge, messages=huge), tick(3)])
    population.write("samples.jsonl", [sample(1, 0.4), {**sample(2, 0.5), "histogram": [huge]}])
    found = population.read()
    assert found.lines["tick_ms"] == [2.0, None, 2.0]
    assert [one.tick for one in found.opinions] == [1]


def test_a_file_that_was_cut_is_read_anew(population: Site) -> None:
    population.write("ticks.jsonl", [tick(each) for each in range(1, 50)])
    assert population.read().rows == 49
    (population.out / "ticks.jsonl").write_text("")
    population.write("ticks.jsonl", [tick(1, tick_ms=9.0)])
    found = population.read()
    assert (found.rows, found.lines["tick_ms"]) == (1, [9.0])


def test_a_file_that_was_replaced_is_read_anew(population: Site) -> None:
    population.write("samples.jsonl", [sample(0, 0.4)])
    population.write("ticks.jsonl", [tick(1)])
    assert [one.mean for one in population.read().opinions] == [0.4]
    population.write("fresh", [sample(0, 0.1), sample(8, 0.2), sample(9, 0.3)])
    (population.out / "fresh").replace(population.out / "samples.jsonl")
    found = population.read()
    assert [(one.tick, one.mean) for one in found.opinions] == [(0, 0.1), (9, 0.3)]
    assert (list(found.moment_ticks), list(found.means)) == ([0, 8, 9], [0.1, 0.2, 0.3])


def test_a_long_file_is_read_in_parts_of_so_many_bytes_and_keeps_its_peak(tmp_path: Path) -> None:
    site = Site(tmp_path, RunKind.POPULATION, bytes_a_look=256 * 1024)
    site.write("ticks.jsonl", (tick(each, tick_ms=77.0 if each == 6_543 else 1.0) for each in range(1, 10_001)))
    first = site.read()
    assert not first.is_whole
    assert 0 < first.rows < 10_000
    while not (found := site.read()).is_whole:
        assert len(found.positions) <= MAX_SERIES_POINTS
    assert found.rows == 10_000
    assert len(found.positions) <= MAX_SERIES_POINTS
    assert max(value for value in found.lines["tick_ms"] if value is not None) == 77.0


def test_kills_are_marked_and_a_crash_is_what_was_no_kill(tmp_path: Path) -> None:
    site = Site(tmp_path, RunKind.SOAK)
    rows = [cycle(1), cycle(2, injected=1), cycle(3, crashes=1, injected=1), cycle(4, crashes=3, injected=1)]
    site.write("stability-metrics.jsonl", rows)
    found = site.read()
    assert list(found.marks) == [RunMark(2, "kill", 1), RunMark(4, "crash", 2)]
    assert found.lines["response_percent"] == [50.0] * 4
    assert found.lines["memory_mib"] == [1.0] * 4


def test_the_messages_of_a_swarm_are_read_from_its_session(tmp_path: Path) -> None:
    site = Site(tmp_path, RunKind.SWARM)
    (site.out / "session_1").mkdir()
    at = "2026-05-01T00:00:00.{:03d}Z"
    rows: list[Mapping[str, Any]] = [
        {"at": at.format(0)},
        {"at": at.format(7), "latency_us": 7_000},
        {"at": at.format(3), "latency_us": 8_000},
    ]
    site.write("session_1/traces.jsonl", rows)
    found = site.read()
    assert (found.axis, list(found.positions)) == ("message", [1, 2, 3])
    assert found.lines["elapsed_ms"] == [0.0, 7.0, 7.0]
    assert found.lines["latency_ms"] == [None, 7.0, 8.0]


def test_a_run_whose_rows_lie_elsewhere_is_drawn_from_its_events(tmp_path: Path) -> None:
    registry = FileRunRegistry(tmp_path / "runs")
    run = Run(new_run_id(AT), RunKind.SOAK, DeliberationStatus.RUNNING, started_at=AT)
    record = registry.register(run)
    for each in (1, 2):
        record.note("soak.cycle_ended", {"cycle": each, "duration_ms": 5.0 * each, "agents": 3, "crashes": 0})
    record.note("soak.other", {"cycle": 9, "duration_ms": 1.0})
    record.end(DeliberationStatus.COMPLETED, at=AT, result={})
    record.close()
    found = FileRunSeries(tmp_path / "runs").read(run)
    assert (found.source, list(found.positions), found.lines["duration_ms"]) == ("events", [1, 2], [5.0, 10.0])


def test_a_rate_that_events_tell_from_the_start_on_is_over_all_the_time_as_it_was_told_last(tmp_path: Path) -> None:
    site = Site(tmp_path, RunKind.POPULATION)
    told = [
        {"sequence": at, "type": "population.progress", "tick": 10 * at, "tick_ms": 1.0, "messages_per_second": rate}
        for at, rate in enumerate((4e6, 2e6, 3e6), start=1)
    ]
    rows = [{"at": AT.isoformat(), "run_id": site.run.id, **row} for row in told]
    (site.folder / "events.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = site.read()
    rate = found.summaries["messages_per_second"]
    assert (found.source, rate.mean, rate.greatest, rate.last) == ("events", 3e6, 4e6, 3e6)
    assert found.summaries["tick_ms"].mean == 1.0


def test_events_that_were_replaced_are_read_anew(tmp_path: Path) -> None:
    site = Site(tmp_path, RunKind.SOAK)
    events = site.folder / "events.jsonl"

    def written(place: Path, *durations: float) -> None:
        rows = [
            {
                "sequence": number,
                "type": "soak.cycle_ended",
                "at": AT.isoformat(),
                "run_id": site.run.id,
                "cycle": number,
                "duration_ms": duration,
            }
            for number, duration in enumerate(durations, start=1)
        ]
        place.write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    written(events, 5.0, 10.0)
    assert site.read().lines["duration_ms"] == [5.0, 10.0]
    written(tmp_path / "fresh", 7.0)
    (tmp_path / "fresh").replace(events)
    assert site.read().lines["duration_ms"] == [7.0]


@pytest.mark.parametrize("link", ["ticks.jsonl", "samples.jsonl"])
def test_a_link_to_a_file_elsewhere_is_not_followed(population: Site, tmp_path: Path, link: str) -> None:
    secret = tmp_path / "secret.jsonl"
    secret.write_text(json.dumps({**tick(1), **sample(1, 0.9)}) + "\n")
    (population.out / link).symlink_to(secret)
    found = population.read()
    assert (found.rows, found.opinions) == (0, ())


def test_a_link_to_a_folder_elsewhere_is_not_followed(population: Site, tmp_path: Path) -> None:
    population.write("ticks.jsonl", [tick(1)])
    population.out.rename(tmp_path / "elsewhere")
    population.out.symlink_to(tmp_path / "elsewhere")
    assert population.read().rows == 0


def test_a_pipe_in_place_of_a_file_holds_nobody_up(population: Site) -> None:
    os.mkfifo(population.out / "ticks.jsonl")
    assert population.read().rows == 0


@pytest.mark.parametrize("name", ["../../etc", "", "0", "01a1fff3-5216-7370-b239-662218857b42/../x"])
def test_an_id_that_is_none_names_no_folder(population: Site, name: str) -> None:
    run = Run(name, RunKind.POPULATION, DeliberationStatus.RUNNING)
    assert population.reader.read(run) == RunSeries()


def test_what_was_read_stays_when_the_folder_is_removed(population: Site) -> None:
    population.write("ticks.jsonl", [tick(1)])
    assert population.read().rows == 1
    (population.out / "ticks.jsonl").unlink()
    population.out.rmdir()
    population.folder.rmdir()
    found = population.read()
    assert (found.rows, found.is_whole) == (1, True)
