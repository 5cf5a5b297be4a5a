"""Makes the lines of a run out of the rows that it writes: ticks of a population, cycles of a soak, messages of a swarm, or events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

from application.ports.run_series import MAX_SERIES_POINTS, Distribution, LineSummary, RunMark, RunSeries
from domain.analysis.decimation import Decimation
from domain.analysis.quantile_sketch import QuantileSketch

__all__ = ["CYCLES", "EVENTS", "MESSAGES", "TICKS", "OpinionBook", "RowShape", "SeriesBook", "number_in"]

_MAX_MARKS = 200
_MAX_BINS = 1_000
_LARGEST = 1e15
_MEBIBYTE = 1024 * 1024

Read: TypeAlias = Callable[[Mapping[str, Any]], "float | None"]


def number_in(row: Mapping[str, Any], *path: str) -> float | None:
    """The number at that place, None for anything else, for NaN, and for what no run of ours counts."""
    value: Any = row
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Compared before it is a float, which has no room for every whole number of JSON; NaN is not less than anything.
    return float(value) if abs(value) <= _LARGEST else None


@dataclass(frozen=True, slots=True)
class RowShape:
    """What the rows of one kind are: their axis, where their place on it stands, and how each line reads its value."""

    axis: str
    position: Read
    lines: Mapping[str, Read]
    marks: Mapping[str, Read]
    source: str = "rows"
    # A rate counts as much in its mean as the time lasted that it holds for, which stands in another line.
    weights: Mapping[str, str] = field(default_factory=dict)
    # Each value of such a line is a mean from the start on already, so that the last one is that of all.
    running: frozenset[str] = frozenset()


def _per_second(row: Mapping[str, Any]) -> float | None:
    messages, tick_ms = number_in(row, "messages"), number_in(row, "tick_ms")
    return messages / tick_ms * 1e3 if messages is not None and tick_ms else None


def _mebibytes(row: Mapping[str, Any]) -> float | None:
    found = number_in(row, "memoryStats", "average")
    return None if found is None else found / _MEBIBYTE


def _percent(row: Mapping[str, Any]) -> float | None:
    found = number_in(row, "responseRate")
    return None if found is None else found * 100.0


def _unwanted(totals: object) -> float | None:
    """Crashes that the run did not cause itself; a kill may be counted a row before its crash."""
    if not isinstance(totals, Mapping):
        return None
    crashes, kills = number_in(totals, "crashes"), number_in(totals, "injected")
    return None if crashes is None else max(0.0, crashes - (kills or 0.0))


def _at(*path: str) -> Read:
    return lambda row: number_in(row, *path)


def _milliseconds(row: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(str(row.get("at"))).timestamp() * 1e3
    except (ValueError, OverflowError, OSError):
        return None


def _latency_ms(row: Mapping[str, Any]) -> float | None:
    found = number_in(row, "latency_us")
    return None if found is None else found / 1e3


TICKS = RowShape(
    "tick",
    _at("tick"),
    {"tick_ms": _at("tick_ms"), "messages_per_second": _per_second, "agents": _at("agents"), "mean": _at("mean")},
    {},
    weights={"messages_per_second": "tick_ms"},
)
CYCLES = RowShape(
    "cycle",
    _at("cycle"),
    {
        "duration_ms": _at("duration"),
        "response_ms": _at("averageResponseTime"),
        "response_percent": _percent,
        "memory_mib": _mebibytes,
        "agents": _at("agents"),
    },
    {"kill": _at("totals", "injected"), "crash": lambda row: _unwanted(row.get("totals"))},
)
MESSAGES = RowShape("message", _milliseconds, {"elapsed_ms": lambda _row: None, "latency_ms": _latency_ms}, {})
EVENTS: Mapping[str, RowShape] = {
    "population.progress": RowShape(
        "tick",
        _at("tick"),
        {"tick_ms": _at("tick_ms"), "messages_per_second": _at("messages_per_second")},
        {},
        source="events",
        running=frozenset({"messages_per_second"}),
    ),
    "soak.cycle_ended": RowShape(
        "cycle",
        _at("cycle"),
        {"duration_ms": _at("duration_ms"), "agents": _at("agents")},
        {"kill": _at("injected"), "crash": _unwanted},
        source="events",
    ),
    "swarm.progress": RowShape("ms", _milliseconds, {"messages": _at("received")}, {}, source="events"),
    "pantheon.cycle_ended": RowShape("cycle", _at("cycle"), {"bus_us": _at("bus_us")}, {}, source="events"),
}


class SeriesBook:
    """The lines of one run, row by row. Takes whatever stands in a file: what is no row of its shape is passed over."""

    def __init__(self, shape: RowShape) -> None:
        self.shape = shape
        self._decimation = Decimation(len(shape.lines), max_points=MAX_SERIES_POINTS)
        self._sketches = {name: QuantileSketch() for name in shape.lines}
        self._last = dict.fromkeys(shape.lines, 0.0)
        # Of each rate the sum of its values by their weights, and that of the weights.
        self._weighed = {name: [0.0, 0.0] for name in shape.weights}
        self._before = dict.fromkeys(shape.marks, 0.0)
        self._marks: list[RunMark] = []
        self._begin: float | None = None
        self._elapsed_ms = 0.0
        self._position = -math.inf

    @property
    def is_begun(self) -> bool:
        """Whether a row was taken."""
        return self._decimation.rows > 0

    def take(self, line: bytes) -> None:
        """One line of the file."""
        row = _row_in(line)
        if row is not None:
            self.take_row(row)

    def take_row(self, row: Mapping[str, Any]) -> None:
        """One row. One that does not come after those before it is passed over."""
        position = self.shape.position(row)
        if position is None:
            return
        elapsed_ms = 0.0
        if self.shape.position is _milliseconds:
            # From the first row on; clocks may stand still and never go back.
            self._begin = position if self._begin is None else self._begin
            elapsed_ms = position = max(position - self._begin, self._elapsed_ms)
            self._elapsed_ms = elapsed_ms
        if self.shape is MESSAGES:
            position = float(self._decimation.rows + 1)
        if position <= self._position and self.shape.axis != "ms":
            return
        self._position = position
        values = [read(row) for read in self.shape.lines.values()]
        if self.shape is MESSAGES:
            values[0] = elapsed_ms
        self._decimation.add(position, values)
        for (name, sketch), value in zip(self._sketches.items(), values, strict=True):
            if value is not None:
                sketch.add(value)
                self._last[name] = value
        taken = dict(zip(self.shape.lines, values, strict=True))
        for name, by in self.shape.weights.items():
            value, weight = taken[name], taken[by]
            if value is not None and weight is not None and weight > 0:
                self._weighed[name][0] += value * weight
                self._weighed[name][1] += weight
        for kind, read in self.shape.marks.items():
            self._mark(position, kind, read(row) or 0.0)

    def series(
        self, *, is_whole: bool, opinions: Sequence[Distribution], moments: Sequence[Sequence[float | None]]
    ) -> RunSeries:
        """What was taken so far."""
        positions, lines = self._decimation.points()
        given = dict(zip(self.shape.lines, lines, strict=True))
        summaries = {
            name: _summary(sketch, self._last[name], self._mean_of_rate(name))
            for name, sketch in self._sketches.items()
        }
        ticks, means, variances = moments
        return RunSeries(
            axis=self.shape.axis,
            positions=positions,
            lines={name: line for name, line in given.items() if self._sketches[name].count},
            summaries={name: found for name, found in summaries.items() if found is not None},
            opinions=opinions,
            moment_ticks=[tick for tick in ticks if tick is not None],
            means=means,
            variances=variances,
            marks=tuple(self._marks),
            rows=self._decimation.rows,
            is_whole=is_whole,
            source=self.shape.source,
        )

    def _mean_of_rate(self, name: str) -> float | None:
        """The mean over the whole time; None where the line is no rate, and each row counts as much."""
        if name in self.shape.running:
            return self._last[name]
        total, time = self._weighed.get(name, (0.0, 0.0))
        return total / time if time else None

    def _mark(self, position: float, kind: str, total: float) -> None:
        """`total` is counted from the start of the run, so that a mark is what came since the row before."""
        count, self._before[kind] = total - self._before[kind], max(total, self._before[kind])
        if count >= 1 and len(self._marks) < _MAX_MARKS:
            self._marks.append(RunMark(position, kind, int(count)))


class OpinionBook:
    """The distributions of a population over time: the first, the latest, and the moments of all."""

    def __init__(self) -> None:
        self._first: Distribution | None = None
        self._latest: Distribution | None = None
        self._moments = Decimation(2, max_points=MAX_SERIES_POINTS)

    def take(self, line: bytes) -> None:
        """One line of `samples.jsonl`; what is none is passed over."""
        row = _row_in(line)
        found = None if row is None else _distribution(row)
        if found is None or (self._latest is not None and found.tick <= self._latest.tick):
            return
        self._first = self._first or found
        self._latest = found
        self._moments.add(found.tick, (found.mean, found.variance))

    @property
    def distributions(self) -> Sequence[Distribution]:
        """The first and the latest."""
        if self._first is None or self._latest is None:
            return ()
        return (self._first,) if self._latest is self._first else (self._first, self._latest)

    @property
    def moments(self) -> Sequence[Sequence[float | None]]:
        """Ticks, means and variances."""
        ticks, (means, variances) = self._moments.points()
        return ticks, means, variances


def _row_in(line: bytes) -> Mapping[str, Any] | None:
    """The object in that line; what could be shown to nobody does no harm here, because only numbers are taken out of it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _distribution(row: Mapping[str, Any]) -> Distribution | None:
    tick, mean, variance = number_in(row, "tick"), number_in(row, "mean"), number_in(row, "variance")
    histogram = row.get("histogram")
    if tick is None or mean is None or variance is None or not isinstance(histogram, list):
        return None
    counts = tuple(
        count
        for count in histogram
        if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= _LARGEST
    )
    if not 0 < len(counts) == len(histogram) <= _MAX_BINS:
        return None
    return Distribution(int(tick), mean, variance, counts)


def _summary(sketch: QuantileSketch, last: float, mean_of_rate: float | None) -> LineSummary | None:
    mean, p50, p95 = sketch.mean, sketch.quantile(0.5), sketch.quantile(0.95)
    if mean is None or p50 is None or p95 is None:
        return None
    mean = mean if mean_of_rate is None else mean_of_rate
    return LineSummary(sketch.count, sketch.least, sketch.greatest, mean, p50, p95, last)
