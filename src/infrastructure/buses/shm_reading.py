"""What one object of a shared-memory bus makes of the runs that it took, and where it took those that are to be acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from domain.models.message import Message
from infrastructure.buses.shm_batches import unpack
from infrastructure.buses.shm_lanes import Taken

__all__ = ["Reading"]

_PARTLY_READ = 32
_KNOWN_FLIGHTS = 100_000


class Reading:
    """Unpacks a run once, though it be taken in parts; remembers a bounded number of runs and of places."""

    def __init__(self, *, tell: Callable[[str, list[Message]], None]) -> None:
        """`tell` is told of what is delivered."""
        self._tell = tell
        self._partly_read: dict[int, list[Message]] = {}
        # By inbox and id: record and serial.
        self.flights: dict[tuple[int, str], tuple[int, int]] = {}

    def read(self, inbox: int, taken: list[Taken]) -> list[Message]:
        """The messages of what was taken from an inbox."""
        found: list[Message] = []
        for part in taken:
            messages = self._partly_read.pop(part.record, None)
            if messages is None:
                messages = unpack(part.header, part.payloads)
            if not part.whole:
                if len(self._partly_read) >= _PARTLY_READ:
                    del self._partly_read[next(iter(self._partly_read))]
                self._partly_read[part.record] = messages
            if part.count != len(messages):
                messages = messages[part.first : part.first + part.count]
            if part.attempt > 1:
                for message in messages:
                    message.attempt = part.attempt
            if part.flight is not None:
                for message, flight in zip(messages, part.flight, strict=True):
                    self.flights[inbox, message.id] = flight
                while len(self.flights) > _KNOWN_FLIGHTS:
                    del self.flights[next(iter(self.flights))]
            found += messages
            self._tell("delivered" if part.attempt == 1 else "redelivered", messages)
        return found
