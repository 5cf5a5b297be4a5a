"""The port of a halt's channel: a place outside the process where a halt is set, kept and read."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from domain.models.halt import ChannelReading

__all__ = ["HaltChannel"]


class HaltChannel(Protocol):
    """Holds a halt or none, for every process that looks at the same place, until it is cleared.

    What `set` and `clear` did is as durable as the place is when they return, and every read that begins after it sees it. Calls
    block, may come from any number of threads at a time, and never go through the event loop, so that a loop that is stuck
    hides no halt. Every call raises `HaltChannelUnreachableError` where the place is away or holds something else, and nothing else.
    """

    @property
    def name(self) -> str:
        """What it is called: `database`, `file` or `redis`."""
        ...

    def read(self) -> ChannelReading:
        """Whether it is set, since when and why."""
        ...

    def set(self, reason: str, since: datetime) -> bool:
        """Set it; of several who do, one alone gets True. One that is set already stays as it is."""
        ...

    def clear(self) -> bool:
        """Clear it; True where it was set."""
        ...

    def close(self) -> None:
        """Let connections go; a later call opens them again."""
        ...
