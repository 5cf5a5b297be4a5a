"""Who knows whom, as compressed rows: the neighbours of agent i are `targets[offsets[i]:offsets[i + 1]]`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Adjacency", "both_ways"]


@dataclass(frozen=True, slots=True)
class Adjacency:
    """Neighbours of every row. A neighbour named twice counts twice."""

    offsets: NDArray[np.int64]
    targets: NDArray[np.uint32]

    @property
    def degree(self) -> int:
        """How many neighbours every row has, -1 where they differ."""
        degree = int(self.offsets[1])
        return degree if bool(np.all(np.diff(self.offsets) == degree)) else -1

    @property
    def most_heard(self) -> int:
        """How many neighbours the row with the most of them has; since all edges go both ways, so many may speak to it."""
        return int(np.max(np.diff(self.offsets), initial=0))


def both_ways(rows: int, ends: NDArray[np.uint32], others: NDArray[np.uint32]) -> Adjacency:
    """The adjacency in which each edge leads both ways; edges from an agent to itself are left out."""
    apart = ends != others
    if not bool(apart.all()):
        ends, others = ends[apart], others[apart]
    sources = np.concatenate([ends, others])
    targets = np.concatenate([others, ends])
    offsets = np.zeros(rows + 1, np.int64)
    np.cumsum(np.bincount(sources, minlength=rows), out=offsets[1:])
    return Adjacency(offsets, targets[_stable_order(sources)])


def _stable_order(keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    # Sixteen bits at a time, which numpy sorts by counting.
    order = np.argsort((keys & np.uint32(0xFFFF)).astype(np.uint16), kind="stable")
    high = (keys >> np.uint32(16)).astype(np.uint16)
    return order[np.argsort(high[order], kind="stable")] if int(high.max(initial=0)) else order
