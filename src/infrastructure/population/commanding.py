"""Commands on their way down: from the root to regions, to their localities, to every row, before the next tick."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY, PopulationSpecification
from domain.models.population_tree import FAN_IN, Command, TreeShape
from infrastructure.population.columns import Columns

__all__ = ["REGION_ROWS", "Commanding"]

REGION_ROWS = FAN_IN * LOCALITY
"""Rows of one region."""


class Commanding:
    """What was commanded stands: who comes into a region later takes it over. Rows that other processes speak for take no commands."""

    def __init__(self, spec: PopulationSpecification, columns: Columns, shape: TreeShape) -> None:
        self._spec = spec
        self._columns = columns
        self._shape = shape
        self._given = [Command.parsed(text, regions=shape.regions) for text in spec.commands]
        self.paused = np.zeros(shape.regions, np.bool_)
        self._standing = {
            name: np.full(shape.regions, np.nan) for name in ("bound", "susceptibility", "activity") if self._given
        }
        self.carried_out = 0
        self.messages = 0

    def due(self, tick: int) -> Sequence[Command]:
        """What is to be done before `tick`, in the order it was given."""
        return [one for one in self._given if one.tick == tick]

    def carry_out(self, command: Command) -> NDArray[np.bool_]:
        """Have every row of its regions do it; the localities that it reached."""
        reached = self._take(command)
        if command.value is not None:
            column: NDArray[np.float64] = getattr(self._columns, command.what)
            for first, last in command.spans:
                rows = slice(max(first * REGION_ROWS, self._spec.external), last * REGION_ROWS)
                column[rows] = command.value
        localities = np.repeat(reached, FAN_IN)[: self._spec.localities]
        self.carried_out += 1
        self.messages += self._links_to(reached, localities)
        return localities

    def remember(self, tick: int) -> None:
        """What stands after all commands up to `tick`, whose doing the columns show already."""
        for command in self._given:
            if command.tick <= tick:
                self._take(command)

    def welcome(self, rows: NDArray[np.uint32]) -> None:
        """Let who came to these rows go by what was commanded there."""
        for name, standing in self._standing.items():
            values = standing[rows // np.uint32(REGION_ROWS)]
            told = ~np.isnan(values)
            getattr(self._columns, name)[rows[told]] = values[told]

    def _take(self, command: Command) -> NDArray[np.bool_]:
        reached = np.zeros(self._shape.regions, np.bool_)
        for first, last in command.spans:
            reached[first:last] = True
        if command.value is None:
            self.paused[reached] = command.what == "pause"
        else:
            self._standing[command.what][reached] = command.value
        return reached

    def _links_to(self, regions: NDArray[np.bool_], localities: NDArray[np.bool_]) -> int:
        """Messages that a command takes: one to each node on the way to these regions, and to each row below them."""
        found = int(localities.sum()) + int(regions.sum())
        last = localities.size - 1
        found += int(localities.sum()) * LOCALITY
        found -= int(localities[last]) * (localities.size * LOCALITY - self._spec.agents)
        above = regions
        for nodes in reversed(self._shape.levels[1:-3]):
            above = np.logical_or.reduceat(above, np.arange(0, above.size, FAN_IN))[:nodes]
            found += int(above.sum())
        return found
