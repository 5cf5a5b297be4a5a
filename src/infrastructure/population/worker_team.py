"""The interface of the workers of one population: threads of this process, or processes of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["WorkerTeam"]


class WorkerTeam(Protocol):
    """Takes ticks with all shards. After an error it is only closed."""

    @property
    def processes(self) -> Sequence[int]:
        """The ids of processes beside this one."""
        ...

    def refresh(self, tick: int) -> None:
        """Begin with the columns after `tick`."""
        ...

    def relocate(self, tick: int) -> None:
        """Begin with the columns after `tick`, and with the shards as they are now: blocks have been moved between them."""
        ...

    def tick(self, number: int) -> None:
        """Take that tick with every shard. Raises `BehaviourError` and `ShardLostError`."""
        ...

    def close(self) -> None:
        """End them; may be called twice."""
        ...
