"""What agents say to one another over the bus: messages, what became of those nobody took, and the counts of a bus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TypeAlias

__all__ = [
    "LATENCY_BOUNDS_S",
    "Acknowledgement",
    "BusStats",
    "DeadLetter",
    "DeadLetterReason",
    "Message",
    "MessageHeader",
    "Overflow",
    "Payload",
    "Priority",
]

Payload: TypeAlias = "bool | int | float | str | bytes | list[Payload] | dict[str, Payload] | None"

# Upper bounds, in seconds, of the latencies that `BusStats.latency_histogram` counts: the same for every bus, so that they can be added up.
LATENCY_BOUNDS_S = (
    *(1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 1e-1, 5e-1, 2.5, 10.0),
    float("inf"),
)


class Priority(IntEnum):
    """Which of an inbox's three lanes a message waits in; a lower number is taken first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Overflow(StrEnum):
    """What a full inbox does with one more message."""

    BLOCK = "block"
    REJECT = "reject"
    DROP_OLDEST = "drop_oldest"


class Acknowledgement(StrEnum):
    """When a taken message counts as dealt with: `auto` at once (at most once), `manual` when its agent says so (at least once)."""

    AUTO = "auto"
    MANUAL = "manual"


class DeadLetterReason(StrEnum):
    """Why a message became a dead letter."""

    UNKNOWN_AGENT = "unknown_agent"
    UNREGISTERED = "unregistered"
    INBOX_FULL = "inbox_full"
    EXPIRED = "expired"
    ATTEMPTS = "attempts"


@dataclass(slots=True)
class Message:
    """One message, never changed once it is sent.

    It is not frozen, because that would triple the time to make one; a bus hands on a copy where it has something to fill in.
    """

    sender: str
    # An agent or a group.
    recipient: str
    # What it is about, for the receiver to branch on.
    type: str
    payload: Payload = None
    priority: Priority = Priority.NORMAL
    # Binds a reply to its request.
    correlation_id: str | None = None
    # Unix seconds; not delivered from then on.
    expires_at: float | None = None
    # Filled in by the bus where it is empty; one given by the sender is accepted once per recipient.
    id: str = ""
    # The how manieth delivery this is.
    attempt: int = 1

    def copy(self, *, id: str | None = None, attempt: int | None = None) -> Message:  # noqa: A002 - named as its field
        """The same message with another id or attempt; the payload is shared, not copied."""
        return Message(
            self.sender,
            self.recipient,
            self.type,
            self.payload,
            self.priority,
            self.correlation_id,
            self.expires_at,
            self.id if id is None else id,
            self.attempt if attempt is None else attempt,
        )


@dataclass(frozen=True, slots=True)
class MessageHeader:
    """A message of the past: all of it but the payload, which is there only where the bus keeps payloads."""

    id: str
    sender: str
    recipient: str
    type: str
    priority: Priority
    correlation_id: str | None
    expires_at: float | None
    # When it was sent, in Unix seconds; informative only.
    at: float
    payload: Payload = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that its recipient will never get, and why."""

    message: Message
    # The inbox that it was meant for: with a group or a broadcast one of several.
    recipient: str
    reason: DeadLetterReason
    # How often it was delivered.
    attempts: int
    # Unix seconds.
    at: float


@dataclass(frozen=True, slots=True)
class BusStats:
    """The counts of a bus since it was opened; `sent` and `delivered` count once per inbox."""

    # memory, redis, file or shm.
    transport: str
    sent: int = 0
    delivered: int = 0
    acknowledged: int = 0
    redelivered: int = 0
    duplicates: int = 0
    # Not taken by a full inbox of `block` or `reject`.
    rejected: int = 0
    # Dropped by a full inbox of `drop_oldest`.
    dropped: int = 0
    expired: int = 0
    late_replies: int = 0
    dead_letters: int = 0
    # Waiting and unacknowledged, by agent; agents with none may be in it with 0.
    queued: Mapping[str, int] = field(default_factory=dict)
    # Sent, over the last 10 s.
    messages_per_second: float = 0.0
    # From send to receive in microseconds: min, p50, p95, p99, max; empty until something was received.
    latency_us: Mapping[str, float] = field(default_factory=dict)
    # Foreign, half-written or unreadable things found where messages live; never delivered.
    corrupt: int = 0
    # How many took at most so many seconds from send to receive, for each of `LATENCY_BOUNDS_S`; empty until something was received.
    latency_histogram: Mapping[float, int] = field(default_factory=dict)
    # All of those latencies together, in seconds, as exactly as the transport's buckets are narrow; it never becomes less.
    latency_sum_s: float = 0.0
