"""Gives rows to agents and takes them back: the row given back last is given out first, under the next generation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import PopulationFullError
from domain.models.archetype import rows_of_archetypes
from domain.models.population import GRID, LOCALITY, PopulationSpecification
from infrastructure.population.columns import NOBODY, Columns, first_opinions, first_priorities

__all__ = ["Slab"]


class Slab:
    """The rows of one population. An agent is named by its id for good, and found by its row and generation while it lives."""

    def __init__(self, columns: Columns, spec: PopulationSpecification) -> None:
        self._columns = columns
        self._spec = spec

    def open(self) -> None:
        """Make all rows free, the first one next."""
        columns = self._columns
        columns.free[:] = np.arange(columns.rows, dtype=np.uint32)[::-1]
        columns.free_count[0] = columns.rows

    def seed(self) -> None:
        """Let those who were spawned first begin in the communities of the archetypes: type n is the n-th one's, from 1 on.

        An opinion lies within the archetype's spread around its own, and the less sure it is, the further its agents move.
        """
        columns, spec = self._columns, self._spec
        for kind, (archetype, rows) in enumerate(
            zip(spec.archetypes, rows_of_archetypes(spec.archetypes, spec.agents, locality=LOCALITY), strict=True), 1
        ):
            where = slice(rows.start, rows.stop)
            aside = (columns.opinion[0][where] - 0.5) * 2.0 * archetype.spread
            opinions = np.clip(archetype.opinion + aside, 0.0, 1.0)
            columns.opinion[0][where] = np.rint(opinions * GRID) / GRID
            columns.type[where] = kind
            columns.susceptibility[where] = min(1.0, 2.0 * spec.susceptibility * (1.0 - archetype.confidence))

    def spawn(
        self, count: int, *, tick: int = 0, opinions: NDArray[np.float64] | None = None, kind: int = 0
    ) -> NDArray[np.uint32]:
        """The rows of `count` new agents of type `kind`, who have the given opinions or ones uniform on 0-1 after `tick`.

        Raises `PopulationFullError`, and then there is none of them.
        """
        columns, spec = self._columns, self._spec
        free = int(columns.free_count[0])
        if count > free:
            raise PopulationFullError(wanted=count, free=free)
        rows = columns.free[free - count : free][::-1].copy()
        columns.free_count[0] = free - count
        born = int(columns.born[0])
        columns.born[0] = born + count
        ids = np.arange(born, born + count, dtype=np.uint64)
        # A run of rows is written as a whole, which is how a population begins.
        where: NDArray[np.uint32] | slice = rows
        if count and int(rows[-1]) - int(rows[0]) == count - 1 and bool(np.all(rows[1:] > rows[:-1])):
            where = slice(int(rows[0]), int(rows[-1]) + 1)
        columns.id[where] = ids
        columns.generation[where] += np.uint32(1)
        columns.alive[where] = 1
        columns.type[where] = kind
        columns.priority[where] = first_priorities(spec, ids)
        columns.opinion[tick % 2][where] = first_opinions(spec.seed, ids) if opinions is None else opinions
        columns.bound[where] = spec.bound
        columns.susceptibility[where] = spec.susceptibility
        columns.activity[where] = spec.activity
        columns.peers[where] = NOBODY
        return rows

    def retire(self, rows: NDArray[np.uint32]) -> None:
        """Free the rows of living agents, each named once; messages that still reach them expire."""
        columns = self._columns
        rows = rows[columns.alive[rows] == 1]
        columns.alive[rows] = 0
        columns.state[rows] = 0
        columns.memory[rows] = 0
        columns.metrics[rows] = 0
        free = int(columns.free_count[0])
        columns.free[free : free + rows.size] = rows
        columns.free_count[0] = free + rows.size

    def living(self, row: int, generation: int) -> bool:
        """Whether the agent that had this row under this generation still has it."""
        columns = self._columns
        return bool(columns.alive[row]) and int(columns.generation[row]) == generation
