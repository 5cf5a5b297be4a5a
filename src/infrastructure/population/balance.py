"""Which community blocks go to another shard, so that all workers take as long for a tick."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Move", "move_for"]

_WORTH = 1.2
# More at once would overshoot where the measure was disturbed.
_MOST = 0.1


@dataclass(frozen=True, slots=True)
class Move:
    """Some blocks and the shard that takes them over."""

    blocks: NDArray[np.int64]
    shard: int


def move_for(block_shard: NDArray[np.uint16], busy: NDArray[np.float64], *, shards: int) -> Move | None:
    """What the slowest worker gives to the fastest, by the time that each was busy; None where it is not worth it.

    Shard s is that of worker s % workers. The fullest shard of the one gives its last blocks to the emptiest of the other.
    """
    workers = busy.size
    slow, fast = int(np.argmax(busy)), int(np.argmin(busy))
    if workers < 2 or busy[slow] < _WORTH * max(float(busy.mean()), 1e-9):
        return None
    filled = np.bincount(block_shard, minlength=shards)
    mine = np.arange(slow, shards, workers)
    theirs = np.arange(fast, shards, workers)
    source, target = int(mine[np.argmax(filled[mine])]), int(theirs[np.argmin(filled[theirs])])
    share = min(_MOST, float(busy[slow] - busy.mean()) / float(busy[slow]))
    count = min(int(share * filled[mine].sum()), int(filled[source]) - 1)
    if count < 1:
        return None
    return Move(np.flatnonzero(block_shard == source)[-count:], target)
