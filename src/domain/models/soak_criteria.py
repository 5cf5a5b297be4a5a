"""The four criteria of a soak: does memory grow, do cycles spread, did agents crash, is every cycle there."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from domain.models.run import JsonValue

__all__ = [
    "CYCLES_TO_JUDGE",
    "GROWTH_LIMIT_PERCENT",
    "VARIANCE_FLOOR_MS",
    "VARIANCE_LIMIT_PERCENT",
    "Criterion",
    "GrowthWatch",
    "judge_completeness",
    "judge_crashes",
    "judge_growth",
    "judge_variance",
    "percentile",
]

CYCLES_TO_JUDGE = 12
"""Growth and variance of fewer cycles than this are not judged: too few points for a slope or a 95th percentile."""
GROWTH_LIMIT_PERCENT = 10.0
VARIANCE_LIMIT_PERCENT = 20.0
VARIANCE_FLOOR_MS = 1_000.0
"""A spread is seen in proportion to the usual cycle, or to a second where that is shorter: 20 % of a cycle of 30 ms is one hiccup."""
_WINDOWS = 80
_LEAST_POINTS = 6
_P95 = 0.95


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that was judged; `value` is None where there is too little to judge."""

    value: float | None
    limit: float
    passed: bool

    def document(self) -> dict[str, JsonValue]:
        """As it stands in the report."""
        return {"value": self.value, "limit": self.limit, "passed": self.passed}


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that `fraction` of them do not exceed, by nearest rank; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


@dataclass(slots=True)
class _Series:
    """Running sums of one process in one constellation: enough for a least-squares line, whatever its length."""

    n: int = 0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    first: float = 0.0
    last: float = 0.0

    def add(self, x: float, y: float) -> None:
        if not self.n:
            self.first = x
        self.n += 1
        self.last = x
        self.x += x
        self.y += y
        self.xx += x * x
        self.xy += x * y

    @property
    def spread(self) -> float:
        return self.xx - self.x * self.x / self.n if self.n else 0.0

    @property
    def covariance(self) -> float:
        return self.xy - self.x * self.y / self.n if self.n else 0.0

    @property
    def mean(self) -> float:
        return self.y / self.n if self.n else 0.0


@dataclass(slots=True)
class GrowthWatch:
    """Says how much the memory of processes grew, in percent, by least squares over the cycles after each one's warm-up.

    `value` is the larger of two: the common slope of all processes, each about its own mean, over the whole judged span; and the slope of
    the one that grew most, over its own span. So a leak in one of fifty shows, and so does one that every process has a little of. A
    process that is started again begins anew, and so does everyone when the number of processes changes, because shared pages are
    then shared by fewer.
    """

    warm_up: int
    floor: float
    _seen: dict[int, int] = field(default_factory=dict)
    _series: dict[tuple[int, int], _Series] = field(default_factory=dict)
    _past: _Series = field(default_factory=_Series)
    _past_spread: float = 0.0
    _past_covariance: float = 0.0
    _past_worst: float | None = None
    _first: float = math.inf
    _last: float = -math.inf

    def add(self, cycle: int, process: int, constellation: int, value: float) -> None:
        """One measurement, in bytes, of a process after a cycle."""
        seen = self._seen.get(process, 0) + 1
        self._seen[process] = seen
        if seen <= self.warm_up:
            return
        self._first = min(self._first, cycle)
        self._last = max(self._last, cycle)
        self._series.setdefault((process, constellation), _Series()).add(cycle, value)

    def forget(self, process: int) -> None:
        """That process has ended; what it showed still counts."""
        self._seen.pop(process, None)
        for key in [key for key in self._series if key[0] == process]:
            self._retire(self._series.pop(key))

    def _retire(self, series: _Series) -> None:
        self._past_spread += series.spread
        self._past_covariance += series.covariance
        self._past.n += series.n
        self._past.y += series.y
        own = self._own_growth(series)
        if own is not None:
            self._past_worst = own if self._past_worst is None else max(own, self._past_worst)

    def _own_growth(self, series: _Series) -> float | None:
        if series.n < _LEAST_POINTS or series.spread <= 0:
            return None
        rise = series.covariance / series.spread * (series.last - series.first)
        return 100.0 * rise / max(series.mean - rise / 2, self.floor)

    @property
    def common(self) -> float | None:
        """The growth of all together, in percent; None while there is no slope."""
        every = list(self._series.values())
        spread = self._past_spread + sum(series.spread for series in every)
        points = self._past.n + sum(series.n for series in every)
        if spread <= 0 or not points:
            return None
        covariance = self._past_covariance + sum(series.covariance for series in every)
        mean = (self._past.y + sum(series.y for series in every)) / points
        rise = covariance / spread * (self._last - self._first)
        return 100.0 * rise / max(mean - rise / 2, self.floor)

    @property
    def worst(self) -> float | None:
        """The growth of the one that grew most, in percent."""
        grown = [found for series in self._series.values() if (found := self._own_growth(series)) is not None]
        if self._past_worst is not None:
            grown.append(self._past_worst)
        return max(grown, default=None)

    @property
    def value(self) -> float | None:
        """The larger of the two."""
        return max((each for each in (self.common, self.worst) if each is not None), default=None)


def judge_growth(cycles: int, *values: float | None) -> Criterion:
    """The largest growth in percent. From `CYCLES_TO_JUDGE` cycles on, memory that could not be measured does not pass."""
    if cycles < CYCLES_TO_JUDGE:
        return Criterion(None, GROWTH_LIMIT_PERCENT, passed=True)
    value = max((value for value in values if value is not None), default=None)
    passed = value is not None and value <= GROWTH_LIMIT_PERCENT
    return Criterion(None if value is None else round(value, 3), GROWTH_LIMIT_PERCENT, passed=passed)


def judge_variance(cycle_ms: Sequence[float]) -> Criterion:
    """How far the worst window's 95th percentile lies above the usual cycle, in percent of the latter.

    The cycles are cut into windows of an eightieth of the run, of at least twelve cycles: a run of up to 1,520 cycles is judged by its
    slowest cycle, a longer one by its slowest stretch. The usual cycle is the median of all; percents are of at least `VARIANCE_FLOOR_MS`.
    """
    if len(cycle_ms) < CYCLES_TO_JUDGE:
        return Criterion(None, VARIANCE_LIMIT_PERCENT, passed=True)
    usual = statistics.median(cycle_ms)
    size = max(CYCLES_TO_JUDGE, math.ceil(len(cycle_ms) / _WINDOWS))
    # The last window overlaps the one before it rather than being longer: a longer one would not see a single slow cycle.
    starts = {*range(0, len(cycle_ms) - size + 1, size), len(cycle_ms) - size}
    worst = max(percentile(cycle_ms[start : start + size], _P95) for start in starts)
    value = 100.0 * (worst - usual) / max(usual, VARIANCE_FLOOR_MS)
    return Criterion(round(value, 3), VARIANCE_LIMIT_PERCENT, passed=value <= VARIANCE_LIMIT_PERCENT)


def judge_crashes(crashes: int, injected: int) -> Criterion:
    """Crashes that nobody asked for: none are allowed."""
    unplanned = max(0, crashes - injected)
    return Criterion(unplanned, 0, passed=unplanned == 0)


def judge_completeness(*, rows: int, completed: int, planned: int, lost: int) -> Criterion:
    """Rows in the file, completed and planned cycles are equal and nothing is lost; the value is the fewest of the three."""
    return Criterion(min(rows, completed, planned), planned, passed=rows == completed == planned and lost == 0)
