"""What was delivered from an inbox of a file bus and is not acknowledged yet: when each is due again, and where it lies."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

__all__ = ["Held", "HeldMessage", "held_name"]

_SLACK = 64


@dataclass(slots=True)
class HeldMessage:
    """One message that waits to be acknowledged."""

    priority: int
    sequence: int
    attempt: int
    # Monotonic nanoseconds.
    due: int
    # Unix microseconds; 0 when it never expires.
    expiry: int = 0
    # None while only its file's name is known.
    id: str | None = None


class Held:
    """The unacknowledged messages of one inbox, as of the change that `changes` counts."""

    __slots__ = ("_due", "_ready", "by_id", "changes", "messages")

    def __init__(self) -> None:
        self.changes = 0
        self.messages: dict[tuple[int, int], HeldMessage] = {}
        self.by_id: dict[str, HeldMessage] = {}
        # Places of messages not due yet, soonest first, and of those that are, oldest first in each priority. Either may name a
        # message that has gone since.
        self._due: list[tuple[int, int, int]] = []
        self._ready: tuple[list[int], list[int], list[int]] = ([], [], [])

    def replace(self, found: list[HeldMessage], changes: int) -> None:
        """Another object was at it: this is what is there now."""
        ids = {place: message.id for place, message in self.messages.items()}
        self.changes = changes
        self.messages, self.by_id = {}, {}
        self._due, self._ready = [], ([], [], [])
        for message in found:
            message.id = ids.get((message.priority, message.sequence))
            self.put(message)

    def put(self, message: HeldMessage) -> None:
        """One more, or one delivered once more."""
        self.messages[message.priority, message.sequence] = message
        if message.id is not None:
            self.by_id[message.id] = message
        heapq.heappush(self._due, (message.due, message.priority, message.sequence))
        if len(self._due) > 2 * len(self.messages) + _SLACK:
            # Most of it is dealt with, long before it would have been due.
            self._due = [(each.due, each.priority, each.sequence) for each in self.messages.values()]
            heapq.heapify(self._due)

    def remove(self, message: HeldMessage) -> None:
        """It is dealt with."""
        del self.messages[message.priority, message.sequence]
        if message.id is not None and self.by_id.get(message.id) is message:
            del self.by_id[message.id]

    def ripen(self, now: int) -> None:
        """Sort out what is due by now."""
        while self._due and self._due[0][0] <= now:
            due, priority, sequence = heapq.heappop(self._due)
            message = self.messages.get((priority, sequence))
            if message is not None and message.due == due:
                heapq.heappush(self._ready[priority], sequence)

    def next_ready(self, priority: int, now: int) -> HeldMessage | None:
        """The oldest that is due in this priority; it stays."""
        ready = self._ready[priority]
        while ready:
            message = self.messages.get((priority, ready[0]))
            if message is not None and message.due <= now:
                return message
            heapq.heappop(ready)
        return None

    def next_due(self) -> int | None:
        """When the next one is due, in monotonic nanoseconds; it may be one that has gone since."""
        if any(self._ready):
            return 0
        return self._due[0][0] if self._due else None


def held_name(slot: int, message: HeldMessage) -> str:
    """The name of its file, which says everything but its content."""
    return f"{slot:x}-{message.priority}-{message.sequence:x}-{message.attempt:x}-{message.due:x}-{message.expiry:x}"
