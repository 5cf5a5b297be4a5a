"""A halt's channel in memory: shared by whoever holds the object, and away whenever it is told to be."""

from __future__ import annotations

import threading
from datetime import datetime

from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import ChannelReading

__all__ = ["HaltChannelStub"]


class HaltChannelStub:
    """`HaltChannel` without a place outside the process: it forgets with the process.

    While `problem` is set it is away; while `answers` is cleared every call hangs.
    """

    def __init__(self, name: str = "memory") -> None:
        self.name = name
        self.problem: str | None = None
        self.answers = threading.Event()
        self.answers.set()
        self._lock = threading.Lock()
        self._reading = ChannelReading(halted=False)

    def read(self) -> ChannelReading:
        """As in `HaltChannel`."""
        self._reach()
        with self._lock:
            return self._reading

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`."""
        self._reach()
        with self._lock:
            if self._reading.halted:
                return False
            self._reading = ChannelReading(halted=True, reason=reason, since=since)
            return True

    def clear(self) -> bool:
        """As in `HaltChannel`."""
        self._reach()
        with self._lock:
            was_set = self._reading.halted
            self._reading = ChannelReading(halted=False)
            return was_set

    def close(self) -> None:
        """Nothing is held open."""

    def _reach(self) -> None:
        self.answers.wait()
        if self.problem is not None:
            raise HaltChannelUnreachableError(channel=self.name, problem=self.problem)
