"""Which rows of a worker's shards a tick sends for and steps: all, but for those in community blocks at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY
from infrastructure.population.field import SILENT, STILL, Field

__all__ = ["Schedule", "Turns"]


@dataclass(frozen=True, slots=True)
class Turns:
    """Rows, shard by shard and in whole blocks, where each own shard begins among them, and the micro-batches they are taken in:
    shard, first place, and the place after the last.
    """

    rows: NDArray[np.uint32]
    starts: NDArray[np.int64]
    batches: Sequence[tuple[int, int, int]]


class Schedule:
    """Follows what the tree says about blocks at rest. Where none ever rests, it is made once and asks nothing."""

    def __init__(self, field: Field, *, sent_at_a_time: int, stepped_at_a_time: int) -> None:
        """So many rows at a time, both multiples of LOCALITY, so that no block is in two batches."""
        self._field = field
        self._sent_at_a_time, self._stepped_at_a_time = sent_at_a_time, stepped_at_a_time
        self._rest: NDArray[np.uint8] | None = None
        self.sending = self._turns(field.rows, field.starts, sent_at_a_time)
        self.stepping = self._turns(field.rows, field.starts, stepped_at_a_time)

    @property
    def rests(self) -> bool:
        """Whether a tick may pass over some blocks."""
        return self._field.block_rest is not None

    def look(self) -> NDArray[np.uint32]:
        """Plan the next tick; the rows that it steps and the one before did not, which heard in vain what they were sent."""
        found = self._field.block_rest
        if found is None or (self._rest is not None and np.array_equal(found, self._rest)):
            return np.zeros(0, np.uint32)
        before, self._rest = self._rest, found.copy()
        blocks = self._field.rows // np.uint32(LOCALITY)
        at_rest = self._rest[blocks]
        self.sending = self._without(at_rest & SILENT != 0, self._sent_at_a_time)
        still = at_rest & STILL != 0
        self.stepping = self._without(still, self._stepped_at_a_time)
        if before is None:
            return np.zeros(0, np.uint32)
        woken: NDArray[np.uint32] = self._field.rows[(before[blocks] & STILL != 0) & ~still]
        return woken

    def _without(self, at_rest: NDArray[np.bool_], at_a_time: int) -> Turns:
        kept = np.concatenate([np.zeros(1, np.int64), np.cumsum(~at_rest)])
        return self._turns(self._field.rows[~at_rest], kept[self._field.starts], at_a_time)

    def _turns(self, rows: NDArray[np.uint32], starts: NDArray[np.int64], at_a_time: int) -> Turns:
        batches = []
        for place, shard in enumerate(self._field.own):
            first, last = int(starts[place]), int(starts[place + 1])
            batches += [(int(shard), start, min(start + at_a_time, last)) for start in range(first, last, at_a_time)]
        return Turns(rows, starts, batches)
