"""Opinions that are changed beside the kernels: kept on the grid, and the exact sums of their communities with them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID, LOCALITY
from infrastructure.population.columns import Columns, on_grid

__all__ = ["Mover"]


class Mover:
    """Puts opinions into rows, and says afterwards that it did: kernels keep copies of opinions, which have to be made anew."""

    def __init__(self, columns: Columns, block_sums: NDArray[np.int64] | None = None) -> None:
        """`block_sums` are those of the communities in units of 1 / GRID."""
        self._columns = columns
        self._sums = block_sums
        self._moved = False

    def move(self, tick: int, rows: NDArray[np.int64], opinions: NDArray[np.float64]) -> None:
        """Give living agents, each named once, these opinions after `tick`, each from 0 to 1."""
        if not rows.size:
            return
        column = self._columns.opinion[tick % 2]
        units = on_grid(opinions)
        if self._sums is not None:
            blocks = rows // LOCALITY
            apart = units - on_grid(column[rows])
            if rows.size >= LOCALITY and bool(np.all(blocks[1:] >= blocks[:-1])):
                begins = np.flatnonzero(np.diff(blocks, prepend=-1))
                self._sums[blocks[begins]] += np.add.reduceat(apart, begins)
            else:
                np.add.at(self._sums, blocks, apart)
        column[rows] = units * (1.0 / GRID)
        self._moved = True

    def take_moved(self) -> bool:
        """Whether any opinion was changed since this was last asked."""
        moved, self._moved = self._moved, False
        return moved
