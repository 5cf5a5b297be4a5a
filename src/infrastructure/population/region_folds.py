"""What each region last said of its opinions: count, exact sum, extremes and histogram, and since when it has said nothing new."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID, GRID_BITS
from domain.models.population_tree import FAN_IN
from domain.models.run import JsonValue
from infrastructure.population.columns import Columns
from infrastructure.population.commanding import REGION_ROWS

__all__ = ["BINS", "RegionFolds", "RegionValue", "fold_region"]

BINS = 100
_HUNDRED = np.int64(BINS)


@dataclass(frozen=True, slots=True)
class RegionValue:
    """Of the living agents of one region: how many, the exact sum of their opinions, the least and the most in units of 1 / GRID,
    and how many there are in each hundredth.
    """

    count: int
    total: int
    least: int
    most: int
    histogram: NDArray[np.int64]


def fold_region(opinions: NDArray[np.float64], alive: NDArray[np.uint8]) -> RegionValue:
    """That of these rows, each hundredth with its lower end and the last one with both.

    Raises `ValueError` where an opinion is none from 0 to 1.
    """
    own = opinions[alive == 1]
    if not bool(np.all((own >= 0.0) & (own <= 1.0))):
        raise ValueError("holds an opinion that is none from 0 to 1")
    units = (own * GRID).astype(np.int64)
    bins = np.minimum(units * _HUNDRED >> np.int64(GRID_BITS), BINS - 1)
    return RegionValue(
        count=units.size,
        total=int(units.sum()),
        least=int(units.min()) if units.size else GRID,
        most=int(units.max()) if units.size else 0,
        histogram=np.bincount(bins, minlength=BINS),
    )


class RegionFolds:
    """Asks regions one after the other, the one that was asked longest ago first, so that none misses the deadline for ever.

    A region whose fold raises, or that is not reached in time, keeps its last value, which is stale and named; the others go on.
    """

    def __init__(
        self,
        columns: Columns,
        regions: int,
        *,
        fold: Callable[[NDArray[np.float64], NDArray[np.uint8]], RegionValue] = fold_region,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._columns = columns
        self._fold = fold
        self._clock = clock
        self.counts = np.zeros(regions, np.int64)
        self.totals = np.zeros(regions, np.int64)
        self.least = np.full(regions, GRID, np.int64)
        self.most = np.zeros(regions, np.int64)
        self.histograms = np.zeros((regions, BINS), np.int64)
        # The tick that each region's value is of, -1 where it never had one.
        self.of_tick = np.full(regions, -1, np.int64)
        self.problems: dict[int, str] = {}

    def ask(self, tick: int, *, dirty: NDArray[np.bool_] | None = None, deadline_s: float | None = None) -> None:
        """Fold the regions in which something changed since they were asked (`dirty`, None: all), for so many seconds at most."""
        began = self._clock()
        self.problems.clear()
        if dirty is not None:
            # What did not change is as good as new.
            self.of_tick[~dirty & (self.of_tick >= 0)] = tick
        wanted = np.flatnonzero(self.of_tick < tick)
        for region in wanted[np.argsort(self.of_tick[wanted], kind="stable")].tolist():
            if deadline_s is not None and self._clock() - began >= deadline_s:
                self.problems[region] = f"was not reached within {deadline_s:g} s"
                continue
            rows = slice(region * REGION_ROWS, (region + 1) * REGION_ROWS)
            try:
                value = self._fold(self._columns.opinion[tick % 2][rows], self._columns.alive[rows])
            except Exception as error:  # noqa: BLE001 - whatever it is, the region is named and the others go on
                self.problems[region] = f"{type(error).__name__}: {error}"
                continue
            self._keep(region, value, tick)

    def root(self) -> dict[str, JsonValue]:
        """All regions together, no node of them with more than a hundred below it; opinions from 0 to 1, the sum exact."""
        counts, totals, least, most = self.counts, self.totals, self.least, self.most
        histograms = self.histograms
        while counts.size > 1:
            begins = np.arange(0, counts.size, FAN_IN)
            counts, totals = np.add.reduceat(counts, begins), np.add.reduceat(totals, begins)
            least, most = np.minimum.reduceat(least, begins), np.maximum.reduceat(most, begins)
            histograms = np.add.reduceat(histograms, begins, axis=0)
        count, total = int(counts[0]), int(totals[0])
        return {
            "count": count,
            "sum": total / GRID,
            "sum_in_units": total,
            "least": int(least[0]) / GRID if count else None,
            "most": int(most[0]) / GRID if count else None,
            "histogram": [int(number) for number in histograms[0]],
        }

    def stale(self) -> list[dict[str, JsonValue]]:
        """The regions whose value is old: since which tick (None: they never had one), and why."""
        return [
            {"region": region, "value_of_tick": int(since) if since >= 0 else None, "problem": problem}
            for region, problem in sorted(self.problems.items())
            for since in (self.of_tick[region],)
        ]

    def _keep(self, region: int, value: RegionValue, tick: int) -> None:
        self.counts[region], self.totals[region] = value.count, value.total
        self.least[region], self.most[region] = value.least, value.most
        self.histograms[region] = value.histogram
        self.of_tick[region] = tick
