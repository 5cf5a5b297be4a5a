"""The interface of what moves the messages of a tick and steps its agents, whatever it is compiled with."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.field import TickKeys

__all__ = ["Kernel", "Taken"]

Taken: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]
"""Messages as they were taken out of rings: recipient row << 32 | sender row, the opinion on the grid, the priority."""


class Kernel(Protocol):
    """Does the work of one worker's shards. Two kernels leave exactly the same columns behind."""

    name: str

    def refresh(self, tick: int) -> None:
        """Begin with the columns after `tick`: what was heard before is forgotten."""
        ...

    def attend(self, rows: NDArray[np.uint32]) -> None:
        """Let places be those in these rows from now on, in place of all rows of the own shards."""
        ...

    def forget(self, rows: NDArray[np.uint32], tick: int) -> None:
        """Let these rows, which were not stepped for a while, begin after `tick` with nothing heard."""
        ...

    def begin(self, keys: TickKeys) -> None:
        """Take the random numbers of the next tick."""
        ...

    def emit(self, source: int, start: int, stop: int, position: NDArray[np.int64]) -> tuple[int, int]:
        """Put messages `start` to `stop` of shard `source` into the rings, as far as there is room.

        Messages are counted as places among the rows attended to, times the messages of an agent. Returns where to go on and how
        many were put; `position` is set to the heads that make them visible, by lane and destination, once they are published.
        """
        ...

    def drain(self) -> int:
        """Take what is in the rings of the own shards and fold it, counting what is delivered and expired; how many there were."""
        ...

    def take(self) -> Taken:
        """Take what is in the rings of the own shards without folding it: the higher priority first."""
        ...

    def hear(self, taken: Taken) -> None:
        """Fold what was taken, counting what is delivered and expired."""
        ...

    def step(self, start: int, stop: int) -> None:
        """Write the next opinions of the rows at these places, and the sums of their community blocks; forget what was heard."""
        ...
