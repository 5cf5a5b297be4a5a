"""What a micro-batch of the numpy kernel is made of: rows with what is known of them beforehand, and messages on their way into rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.randomness import GOLDEN

__all__ = ["Letters", "Part", "fitting", "orders", "taken"]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows attended to, and what does not change while they are: their numbers as an index, the units of `width` rows that they
    come in, their counters for random numbers, multiplied already, and where their neighbours begin if all have `degree` of them.
    """

    attended: NDArray[np.uint32]
    rows: NDArray[np.int64]
    units: NDArray[np.int64]
    counters: NDArray[np.uint64]
    edges: NDArray[np.int64]
    width: int

    @classmethod
    def of(cls, attended: NDArray[np.uint32], ids: NDArray[np.uint64], *, width: int, degree: int) -> Part:
        """Those of these rows, which come in whole units."""
        rows = attended.astype(np.int64)
        counters = ids.take(rows)
        counters *= np.uint64(GOLDEN)
        return cls(attended, rows, rows[::width] // width, counters, rows * max(0, degree), width)

    def units_of(self, start: int, stop: int) -> NDArray[np.int64]:
        """The units of the rows at these places, of which the first begins a unit and the last ends one."""
        return self.units[start // self.width : stop // self.width]


@dataclass(slots=True)
class Letters:
    """Messages: the places they are from, None for all from the first on; sender and recipient rows; the opinions on the grid."""

    places: NDArray[np.int64] | None
    rows: NDArray[np.int64]
    targets: NDArray[np.uint64]
    values: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many there are."""
        return int(self.rows.size)

    def first(self, count: int) -> Letters:
        """The first so many of them."""
        places = None if self.places is None else self.places[:count]
        return Letters(places, self.rows[:count], self.targets[:count], self.values[:count])


def taken(column: NDArray[Any], units: NDArray[np.int64], width: int) -> NDArray[Any]:
    """A copy of these units of a column, each `width` rows: many rows at once are moved faster than row by row."""
    return column.reshape(-1, width, *column.shape[1:]).take(units, axis=0)


def orders(key: NDArray[Any], bins: int) -> Sequence[NDArray[np.int64]]:
    """The places of each bin's messages, in their order."""
    if bins == 1:
        return (np.arange(key.size),)
    if bins == 2:
        return (key == 0).nonzero()[0], key.nonzero()[0]
    order = np.argsort(key, kind="stable")
    return np.split(order, np.cumsum(np.bincount(key, minlength=bins))[:-1])


def fitting(key: NDArray[Any], room: NDArray[np.int64]) -> int:
    """How many of the first messages fit into their rings, none of which may overflow."""
    amounts = np.bincount(key, minlength=room.size)
    if not bool(np.any(amounts > room)):
        return int(key.size)
    order = np.argsort(key, kind="stable")
    ranks = np.empty(key.size, np.int64)
    ranks[order] = np.arange(key.size) - np.repeat(np.cumsum(amounts) - amounts, amounts)
    late = np.flatnonzero(ranks >= room.take(key))
    return int(late[0]) if late.size else int(key.size)
