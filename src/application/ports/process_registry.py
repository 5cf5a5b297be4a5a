"""The port that says which processes are known to be dead, so that nobody has to wait until their leases run out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

__all__ = ["NoRegistry", "ProcessRegistry"]


class ProcessRegistry(Protocol):
    """Knows this process by a name that no other has, and of some others that they are dead. Does not know all of the dead."""

    @property
    def own(self) -> str:
        """The name of this process."""
        ...

    def dead(self) -> Sequence[str]:
        """The names of processes that are certain to be dead and were not forgotten yet."""
        ...

    def forget(self, process: str) -> None:
        """Name that one no more: whatever it held is released."""
        ...


class NoRegistry:
    """Knows of nobody but itself: what the dead held is free when their leases have run out."""

    def __init__(self, own: str | None = None) -> None:
        self.own = own if own is not None else uuid4().hex

    def dead(self) -> Sequence[str]:
        """Nobody."""
        return ()

    def forget(self, process: str) -> None:
        """Nothing to forget."""
