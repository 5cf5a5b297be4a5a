"""Which localities a tick may pass over, because nothing that can be said in them or to them would move anybody."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.models.population import ADOPTED, GRID, LOCALITY, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.columns import Columns
from infrastructure.population.field import Behaviour

__all__ = ["Dormancy", "movable"]

# Edges that are looked at together, so that what is read of them stays small.
_EDGES = 500_000


class Dormancy:
    """Follows a population from tick to tick. A locality is asleep after a tick when none of its agents moved in it and none can be moved
    in the next, whatever it hears; all others are predicted to be dirty, and no others are.

    Both depend on the columns of the tick and of the one before alone, never on what was known earlier, so that a resumed population
    sleeps where it would have slept. Nobody is asleep where partners are fresh each tick, or where the rule is a user's own.
    """

    def __init__(
        self, spec: PopulationSpecification, behaviour: Behaviour, columns: Columns, graph: Adjacency | None
    ) -> None:
        """All awake."""
        self._spec = spec
        self._behaviour = behaviour
        self._columns = columns
        self._graph = graph if behaviour is not Behaviour.OWN else None
        blocks = np.arange(spec.localities, dtype=np.int64)
        self.asleep = np.zeros(blocks.size, np.bool_)
        self.moved = np.ones(blocks.size, np.bool_)
        """Localities in which somebody's opinion changed in the last tick."""
        # The row that kept each locality awake when it was looked at last: asked first.
        self._witness = blocks * LOCALITY
        # How many edges lead into each locality from ones that are awake.
        self._loud = np.zeros(blocks.size, np.int64)
        edges = 0
        if self._graph is not None:
            self._loud[:] = np.diff(
                self._graph.offsets[np.minimum(np.append(blocks, blocks.size) * LOCALITY, spec.agents)]
            )
            edges = self._graph.targets.size
        self._at_a_time = max(1, _EDGES * spec.localities // max(1, edges))

    @property
    def silent(self) -> NDArray[np.bool_]:
        """Localities asleep whose agents know only agents in localities asleep, so that nobody they speak to can be moved."""
        found: NDArray[np.bool_] = self.asleep & (self._loud == 0)
        return found

    def follow(self, tick: int, touched: NDArray[np.bool_]) -> None:
        """Decide who sleeps after `tick`, in which these localities were `touched` by somebody beside their agents."""
        now, earlier = self._columns.opinion
        changed = now != earlier
        self.moved = _by_locality(changed)
        if self._graph is None:
            return
        before, busy = self.asleep.copy(), self.moved | touched
        doubtful = ~busy & ~before
        if before.any():
            doubtful |= self._near(np.flatnonzero(changed)) & ~busy
        self.asleep &= ~busy
        candidates = np.flatnonzero(doubtful)
        self.asleep[candidates] = self._settled(candidates, tick)
        self._quieten(np.flatnonzero(self.asleep & ~before), -1)
        self._quieten(np.flatnonzero(before & ~self.asleep), 1)

    def wake(self, touched: NDArray[np.bool_]) -> None:
        """Have these localities stepped in the next tick, because what their agents go by was changed."""
        self._quieten(np.flatnonzero(self.asleep & touched), 1)
        self.asleep &= ~touched

    def begin(self, asleep: NDArray[np.bool_]) -> None:
        """Begin with these asleep."""
        self._quieten(np.flatnonzero(asleep), -1)
        self.asleep[:] = asleep

    def _settled(self, localities: NDArray[np.int64], tick: int) -> NDArray[np.bool_]:
        """Of each of these, whether nobody in it can be moved."""
        found = np.ones(localities.size, np.bool_)
        # Who could be moved when it was looked at last most often still can.
        found[self._movable(self._witness[localities], tick)] = False
        rest = np.flatnonzero(found)
        for start in range(0, rest.size, self._at_a_time):
            places = rest[start : start + self._at_a_time]
            rows = self._rows(localities[places])
            restless = rows[self._movable(rows, tick)]
            owners, first = np.unique(restless // LOCALITY, return_index=True)
            self._witness[owners] = restless[first]
            found[places] = ~np.isin(localities[places], owners)
        return found

    def _movable(self, rows: NDArray[np.int64], tick: int) -> NDArray[np.bool_]:
        if self._graph is None:
            return np.ones(rows.size, np.bool_)
        return movable(self._behaviour, self._columns, self._graph, rows, tick)

    def _near(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The localities of those whom these rows know."""
        near = np.zeros(self.asleep.size, np.bool_)
        at_a_time = self._at_a_time * LOCALITY
        for start in range(0, rows.size, at_a_time):
            near[self._targets(rows[start : start + at_a_time]) // LOCALITY] = True
        return near

    def _quieten(self, localities: NDArray[np.int64], by: int) -> None:
        """Count the edges out of these localities as leading from one awake (1), or no more (-1)."""
        for start in range(0, localities.size, self._at_a_time):
            targets = self._targets(self._rows(localities[start : start + self._at_a_time]))
            self._loud += by * np.bincount(targets // LOCALITY, minlength=self._loud.size)

    def _targets(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        if self._graph is None:
            return np.zeros(0, np.uint32)
        edges, _ = _edges_of(self._graph, rows)
        return self._graph.targets[edges]

    def _rows(self, localities: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = (localities[:, None] * LOCALITY + np.arange(LOCALITY)).reshape(-1)
        return rows[rows < self._spec.agents]


def movable(
    behaviour: Behaviour, columns: Columns, graph: Adjacency, rows: NDArray[np.int64], tick: int
) -> NDArray[np.bool_]:
    """Of each of these rows, whether anything that its neighbours, as they are after `tick`, may say in the next one could move it.

    Never false where it could; computed as the kernels compute it.
    """
    opinions = columns.opinion[tick % 2]
    edges, count = _edges_of(graph, rows)
    heard = (opinions[graph.targets[edges]] * GRID).astype(np.int64)
    present = (opinions[rows] * GRID).astype(np.int64)
    share = columns.susceptibility[rows]
    ends = np.cumsum(count)
    if behaviour is Behaviour.BOUNDED_CONFIDENCE:
        apart = np.abs(heard - np.repeat(present, count))
        reach = np.repeat((columns.bound[rows] * GRID).astype(np.int64), count)
        # The mean of what is heard is no further away than the furthest of it, and half a step is rounded to none.
        found = _sums((apart <= reach) & (np.repeat(share, count) * apart > 0.5), ends, count) > 0
    elif behaviour is Behaviour.VOTER:
        found = (_sums(heard != np.repeat(present, count), ends, count) > 0) & (share > 0.0)
    elif behaviour is Behaviour.THRESHOLD:
        adopted = _sums(opinions[graph.targets[edges]] >= ADOPTED, ends, count)
        found = (count > 0) & (adopted >= columns.bound[rows] * count) & (present != GRID)
    else:
        way = (_sums(heard, ends, count) - count * present) / np.maximum(count, 1)
        found = np.rint(way * share) != 0.0
    living: NDArray[np.bool_] = columns.alive[rows] == 1
    return np.logical_and(found, living)


def _edges_of(graph: Adjacency, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the edges of these rows stand, row by row, and how many each has."""
    first = graph.offsets[rows]
    count = graph.offsets[rows + 1] - first
    ends = np.cumsum(count)
    total = int(ends[-1]) if ends.size else 0
    return np.arange(total) + np.repeat(first - (ends - count), count), count


def _sums(values: NDArray[np.generic], ends: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    found: NDArray[np.int64] = sums[ends] - sums[ends - count]
    return found


def _by_locality(rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    whole = rows.size // LOCALITY
    found: NDArray[np.bool_] = np.logical_or.reduce(rows[: whole * LOCALITY].reshape(whole, LOCALITY), axis=1)
    rest = rows[whole * LOCALITY :]
    return np.append(found, np.any(rest)) if rest.size else found
