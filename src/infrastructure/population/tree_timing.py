"""What a sum up the tree takes beside a flat one, on this machine, in one process."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY
from domain.models.population_tree import FAN_IN, TreeShape
from domain.models.run import JsonValue

__all__ = ["timed"]

_TIMES = 3


def timed(units: NDArray[np.int64], shape: TreeShape, clock: Callable[[], float]) -> dict[str, JsonValue]:
    """Milliseconds (the median of three) of summing all rows level by level, and of summing them at once."""

    def tree() -> int:
        sums = units
        for width in (LOCALITY, *[FAN_IN] * (len(shape.levels) - 2)):
            sums = np.add.reduceat(sums, np.arange(0, sums.size, width))
        return int(sums[0])

    def flat() -> int:
        return int(units.sum())

    tree_ms, flat_ms = _ms(tree, clock), _ms(flat, clock)
    return {
        "tree_ms": tree_ms,
        "flat_ms": flat_ms,
        "flat_over_tree": flat_ms / tree_ms if tree_ms else None,
        "note": "in one process a flat sum need not be slower: what the tree bounds is what one node takes in",
    }


def _ms(way: Callable[[], int], clock: Callable[[], float]) -> float:
    times = []
    for _ in range(_TIMES):
        began = clock()
        way()
        times.append(clock() - began)
    return statistics.median(times) * 1e3
