"""The port to how a run went along: what it counted by tick, cycle or message, in so few points that they can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.models.run import Run

__all__ = ["MAX_SERIES_POINTS", "Distribution", "LineSummary", "NoRunSeries", "RunMark", "RunSeries", "RunSeriesReader"]

MAX_SERIES_POINTS = 2_000
"""The most points of a line that are given out, however many rows there are."""


@dataclass(frozen=True, slots=True)
class LineSummary:
    """One line in numbers, over all its rows; quantiles are within a tenth of a percent. The mean of a rate is over the whole time."""

    count: int
    least: float
    greatest: float
    mean: float
    p50: float
    p95: float
    last: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """How all opinions of a population lay after a tick: `histogram` counts agents by equal parts of 0 to 1."""

    tick: int
    mean: float
    variance: float
    histogram: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunMark:
    """Something that happened at a place of the axis, so many times: `kill` (by the run, on purpose) or `crash` (by itself)."""

    position: float
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class RunSeries:
    """The lines of a run over `axis` (`tick`, `cycle`, `message`, `ms`); at most `MAX_SERIES_POINTS` of each, with no peak or dip lost.

    `rows` is how many were read; `is_whole` whether that is all that there is now, or the next look goes on from there. `source` says what
    they come from: `rows` of the run's own files, or only the `events` that it told now and then. `opinions` are the first and the
    latest distribution, `moments` the mean and variance over ticks.
    """

    axis: str = ""
    positions: Sequence[float] = ()
    lines: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    summaries: Mapping[str, LineSummary] = field(default_factory=dict)
    opinions: Sequence[Distribution] = ()
    moment_ticks: Sequence[float] = ()
    means: Sequence[float | None] = ()
    variances: Sequence[float | None] = ()
    marks: Sequence[RunMark] = ()
    rows: int = 0
    is_whole: bool = True
    source: str = "rows"


class RunSeriesReader(Protocol):
    """Reads what a run has written. May wait for a disk, so an event loop calls from a thread; one call reads a bounded amount."""

    def read(self, run: Run) -> RunSeries:
        """The series as far as it was read, a bounded part further than the last time. Raises nothing for what lies there instead."""
        ...


class NoRunSeries:
    """For runs that leave nothing behind."""

    def read(self, run: Run) -> RunSeries:  # noqa: ARG002 - there is none of any run
        """An empty one."""
        return RunSeries()
