"""The last messages of a bus, kept to be looked at: headers always, payloads where wanted."""

from __future__ import annotations

from collections import deque
from itertools import islice

from domain.models.message import Message, MessageHeader, Payload, Priority

__all__ = ["HISTORY_LIMIT", "MessageHistory"]

HISTORY_LIMIT = 1_000

_Entry = tuple[str, str, str, str, Priority, str | None, float | None, float, Payload]


class MessageHistory:
    """Holds the headers of the last `limit` messages; without `keep_payloads` no payload is kept alive by it."""

    __slots__ = ("_entries", "_keep_payloads", "append")

    def __init__(self, *, limit: int = HISTORY_LIMIT, keep_payloads: bool = False) -> None:
        self._entries: deque[_Entry] = deque(maxlen=limit)
        self._keep_payloads = keep_payloads
        # For the caller that counts nanoseconds: takes the fields of a `MessageHeader` as a tuple.
        self.append = self._entries.append

    def record(self, message: Message, message_id: str, at: float) -> None:
        """Note a message that was sent at `at` (Unix seconds)."""
        self.append(
            (
                message_id,
                message.sender,
                message.recipient,
                message.type,
                message.priority,
                message.correlation_id,
                message.expires_at,
                at,
                message.payload if self._keep_payloads else None,
            )
        )

    def last(self, limit: int, *, offset: float = 0.0) -> list[MessageHeader]:
        """At most so many headers, newest last; `offset` seconds are added where times were noted by another clock."""
        skipped = max(0, len(self._entries) - max(0, limit))
        return [
            MessageHeader(*entry[:7], entry[7] + offset, entry[8]) for entry in islice(self._entries, skipped, None)
        ]
