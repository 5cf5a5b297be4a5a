"""What was said to the first rows of a population in a tick, computed again from the tick's random numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.columns import Columns
from infrastructure.population.field import SILENT, TickKeys
from infrastructure.population.randomness import STRIDE, draw, partners_of

__all__ = ["Speech"]

_11, _32 = np.uint64(11), np.uint64(32)
_UNIT = 2.0**-53


class Speech:
    """Finds who spoke to the first `rows` rows. As edges lead both ways, these are among whom they know, so nobody else is asked,
    and no worker has to set aside what it delivers.
    """

    def __init__(
        self,
        spec: PopulationSpecification,
        columns: Columns,
        graph: Adjacency | None,
        rest: NDArray[np.uint8] | None,
        *,
        rows: int,
    ) -> None:
        self._spec = spec
        self._columns = columns
        self._graph = graph
        self._rest = rest
        self._rows = np.arange(rows, dtype=np.int64)
        known: NDArray[np.uint32] = np.zeros(0, np.uint32)
        if graph is not None:
            known = np.unique(graph.targets[: int(graph.offsets[rows])])
        self._neighbours = known.astype(np.int64)

    def of(self, tick: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The rows spoken to in `tick` and by whom, in the order of both; asked before anybody comes or goes after it."""
        keys = TickKeys.of(self._spec, tick)
        pairs = self._fresh(keys) if self._graph is None else self._known(self._graph, keys)
        recipients, senders = (np.concatenate(one) for one in zip(*pairs, strict=True))
        there = self._columns.alive[recipients] == 1
        order = np.lexsort((senders[there], recipients[there]))
        return recipients[there][order].astype(np.uint32), senders[there][order].astype(np.uint32)

    def _known(self, graph: Adjacency, keys: TickKeys) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        senders = self._neighbours[self._speaks(self._neighbours, keys)]
        first = graph.offsets[senders]
        degree = (graph.offsets[senders + 1] - first).astype(np.uint64)
        pairs = []
        for message in range(self._spec.messages):
            counters = self._columns.id[senders] + np.uint64(message * STRIDE % 2**64)
            chosen = ((draw(keys.recipient, counters) >> _32) * degree) >> _32
            targets = graph.targets[first + chosen.astype(np.int64)].astype(np.int64)
            spoken = targets < self._rows.size
            pairs.append((targets[spoken], senders[spoken]))
        return pairs

    def _fresh(self, keys: TickKeys) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        pairs = []
        for pairing in keys.pairings:
            # Who is alone speaks to itself.
            partners = partners_of(pairing, self._rows.astype(np.uint64)).astype(np.int64)
            spoken = self._speaks(partners, keys)
            pairs.append((self._rows[spoken], partners[spoken]))
        return pairs

    def _speaks(self, rows: NDArray[np.int64], keys: TickKeys) -> NDArray[np.bool_]:
        columns = self._columns
        found: NDArray[np.bool_] = columns.alive[rows] == 1
        if self._rest is not None:
            found &= self._rest[rows // LOCALITY] & SILENT == 0
        chance = (draw(keys.activity, columns.id[rows]) >> _11).astype(np.float64) * _UNIT
        found &= chance < columns.activity[rows]
        return found
