"""The port for time, and the clock that every process uses unless a test brings its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Tells the time. Durations come from `monotonic`, which agrees with the timers of the event loop."""

    def now(self) -> datetime:
        """The time of day, in UTC. Informative only: nothing is ordered by it."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...


class SystemClock:
    """The time of the machine and of the running event loop."""

    def now(self) -> datetime:
        """The time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """The running event loop's time in seconds, so that a loop with virtual time has a virtual clock too."""
        return asyncio.get_running_loop().time()
