"""What the localities of a population say of themselves: how many live in each, and the exact sum of what they think."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID, LOCALITY
from domain.models.population_tree import FAN_IN
from infrastructure.population.columns import Columns, on_grid

__all__ = ["Localities"]


class Localities:
    """Sums come from the workers, who write them when they step; they and counts are made anew where somebody else changed rows."""

    def __init__(self, columns: Columns, sums: NDArray[np.int64]) -> None:
        """`sums` are in units of 1 / GRID, one for each locality."""
        self._columns = columns
        self.sums = sums
        self.living = np.zeros(sums.size, np.int64)
        self.all = np.arange(sums.size, dtype=np.int64)

    @property
    def living_by_region(self) -> NDArray[np.int64]:
        """How many agents live in each region."""
        found: NDArray[np.int64] = np.add.reduceat(self.living, np.arange(0, self.living.size, FAN_IN))
        return found

    def wrong(self) -> NDArray[np.bool_]:
        """Those whose sum is none that their agents can have."""
        found: NDArray[np.bool_] = (self.sums < 0) | (self.sums > self.living * GRID)
        return found

    def count(self, localities: NDArray[np.int64]) -> None:
        """Count anew who lives in these."""
        if self._are_many(localities):
            begins = np.arange(0, self._columns.rows, LOCALITY)
            self.living[localities] = np.add.reduceat(self._columns.alive, begins, dtype=np.int64)[localities]
            return
        _, living = self._rows(localities)
        self.living[localities] = living.reshape(-1, LOCALITY).sum(axis=1, dtype=np.int64)

    def sum(self, localities: NDArray[np.int64], tick: int) -> None:
        """Sum anew what those who live in these think after `tick`."""
        opinions = self._columns.opinion[tick % 2]
        if self._are_many(localities):
            units = np.where(self._columns.alive == 1, on_grid(opinions), 0)
            self.sums[localities] = np.add.reduceat(units, np.arange(0, units.size, LOCALITY))[localities]
            return
        rows, living = self._rows(localities)
        units = np.where(living, on_grid(opinions[rows]), 0)
        self.sums[localities] = units.reshape(-1, LOCALITY).sum(axis=1)

    def _are_many(self, localities: NDArray[np.int64]) -> bool:
        return localities.size * 2 > self.sums.size

    def _rows(self, localities: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A hundred rows for each of these, and which of them somebody lives in."""
        rows = (localities[:, None] * LOCALITY + np.arange(LOCALITY)).reshape(-1)
        there = np.minimum(rows, self._columns.rows - 1)
        return there, (rows == there) & (self._columns.alive[there] == 1)
