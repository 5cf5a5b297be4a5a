"""What a network is told of an agent: eight signed bytes, read from the columns of a tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FEATURES
from infrastructure.population.attachment import Host
from infrastructure.population.randomness import Purpose, draw, key_of

__all__ = ["LEVELS", "FeatureReader", "Scene"]

LEVELS = 64
"""Steps that the way from 0 to 1 is read in: coarse enough for what thousands of agents have in common to be inferred once."""

_SHARE = 32
_MOST = 127
_PIECE = 1 << 16
_32 = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Scene:
    """The opinions of all agents in steps of 1 / LEVELS, before a tick and after it, and whom everybody listens to."""

    tick: int
    before: NDArray[np.int8]
    after: NDArray[np.int8]


class FeatureReader:
    """Reads features that depend on the columns, the tick and the seed alone.

    Everybody listens to one of those it knows, or to anybody where there is no graph: whom, is drawn anew each tick. What it hears is
    the opinion from before the tick, as messages carry it.
    """

    def __init__(self, host: Host) -> None:
        self._spec = host.spec
        self._columns = host.columns
        self._graph = host.graph
        self._some_know_nobody = host.graph is not None and not bool(np.all(np.diff(host.graph.offsets)))

    def scene(self, tick: int) -> Scene:
        """What was before `tick` and after it."""
        opinion = self._columns.opinion
        return Scene(tick, _levels(opinion[(tick - 1) % 2]), _levels(opinion[tick % 2]))

    def scene_ahead(self, tick: int) -> Scene:
        """What `tick` will be, as far as it is known before it is taken: who listens to whom, and what they hear.

        That nobody's opinion will have moved is a guess.
        """
        present = _levels(self._columns.opinion[(tick - 1) % 2])
        return Scene(tick, present, present)

    def of(self, scene: Scene, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """The features of these rows, shape (rows, 8)."""
        columns = self._columns
        found = np.empty((rows.size, len(FEATURES)), np.int8)
        own, before = scene.after[rows], scene.before[rows]
        listened = self._listened_to(scene.tick, rows)
        heard = scene.before[listened]
        if self._some_know_nobody or self._columns.free_count[0]:
            heard = np.where(self._hears(rows, listened), heard, before)
        half = np.int8(LEVELS // 2)
        found[:, 0] = own - half
        found[:, 1] = heard - half
        found[:, 2] = heard - own
        found[:, 3] = own - before
        for place, column in ((4, columns.susceptibility), (5, columns.bound), (6, columns.activity)):
            np.rint(column[rows] * _SHARE, out=found[:, place], casting="unsafe")
        found[:, 7] = np.minimum(columns.type[rows], _MOST)
        return found

    def _listened_to(self, tick: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row that each of these listens to; any at all where there is nobody."""
        bits = draw(key_of(self._spec.seed, tick, Purpose.LISTENING), self._columns.id[rows]) >> _32
        graph = self._graph
        if graph is None:
            return (bits * np.uint64(self._columns.rows) >> _32).astype(np.int64)
        first = graph.offsets[rows]
        count = graph.offsets[rows + 1] - first
        place = first + (bits * count.astype(np.uint64) >> _32).astype(np.int64)
        if not graph.targets.size:
            return rows
        return graph.targets[np.minimum(place, graph.targets.size - 1)].astype(np.int64)

    def _hears(self, rows: NDArray[np.int64], listened: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether there is somebody who lives to be listened to."""
        hears: NDArray[np.bool_] = self._columns.alive[listened] == 1
        if self._graph is not None:
            hears &= self._graph.offsets[rows + 1] > self._graph.offsets[rows]
        return hears


def _levels(opinions: NDArray[np.float64]) -> NDArray[np.int8]:
    found = np.empty(opinions.shape, np.int8)
    for start in range(0, opinions.size, _PIECE):
        np.rint(opinions[start : start + _PIECE] * LEVELS, out=found[start : start + _PIECE], casting="unsafe")
    return found
