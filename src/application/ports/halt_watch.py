"""The port to what this process knows of the halt, for those who change it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from domain.models.halt import ChannelReading, HaltState

__all__ = ["HaltWatch"]


class HaltWatch(Protocol):
    """Knows what every channel said last, and obeys at once what it is told."""

    @property
    def state(self) -> HaltState:
        """What all channels together mean now. Costs no look at any of them."""
        ...

    def shut(self) -> AbstractContextManager[None]:
        """Within it no call begins in this process, and nothing that runs is ended."""
        ...

    def tell(self, channel: str, reading: ChannelReading | None, problem: str = "") -> None:
        """What that channel was found to say just now; None and the problem where it could not be read."""
        ...

    def tell_untaken(self, reading: ChannelReading | None) -> None:
        """A halt that no channel has taken: this process is halted by it, and no other; None once one has, or it was cleared."""
        ...
