"""Agents that leave and agents that come while a population runs, the same ones on any number of shards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import PopulationSpecification
from infrastructure.population.columns import Columns
from infrastructure.population.randomness import Purpose, draw, key_of
from infrastructure.population.slab import Slab

__all__ = ["Turnover"]

_11 = np.uint64(11)
_UNIT = 2.0**-53


class Turnover:
    """After each tick every living agent leaves with the chance `departures`, and as many come as `arrivals` says of all rows.

    Who comes takes the rows given back last. Those for whom no row is left are turned away and counted. Rows that other processes
    speak for stay.
    """

    def __init__(self, spec: PopulationSpecification, columns: Columns, slab: Slab) -> None:
        self._spec = spec
        self._columns = columns
        self._slab = slab
        self.arrived = 0
        self.departed = 0
        self.turned_away = 0

    def take(self, tick: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
        """The rows of those who left after `tick` and of those who came."""
        left = self._leavers(tick)
        self._slab.retire(left.astype(np.uint32))
        self.departed += left.size
        wanted = self._newcomers(tick)
        count = min(wanted, int(self._columns.free_count[0]))
        came = self._slab.spawn(count, tick=tick)
        self.arrived += count
        self.turned_away += wanted - count
        return left, came

    def _leavers(self, tick: int) -> NDArray[np.int64]:
        spec, columns = self._spec, self._columns
        if not spec.departures:
            return np.zeros(0, np.int64)
        living = np.flatnonzero(columns.alive)
        living = living[living >= spec.external]
        drawn = draw(key_of(spec.seed, tick, Purpose.DEPARTURE), columns.id[living]) >> _11
        return living[drawn.astype(np.float64) * _UNIT < spec.departures]

    def _newcomers(self, tick: int) -> int:
        """On the average `arrivals` of all rows."""
        spec = self._spec
        whole, part = divmod(spec.arrivals * spec.agents, 1.0)
        drawn = draw(key_of(spec.seed, tick, Purpose.ARRIVAL), np.zeros(1, np.uint64)) >> _11
        return int(whole) + int(float(drawn[0]) * _UNIT < part)
