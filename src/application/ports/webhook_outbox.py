"""The port through which what is to be told to webhooks is kept until it was, or until nobody tries any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID, uuid5

from domain.models.deliberation import DeliberationStatus

__all__ = [
    "Attempt",
    "DeliveryState",
    "ListedDelivery",
    "WebhookDelivery",
    "WebhookOutbox",
    "delivery_id",
    "event_of",
]

_DELIVERIES = UUID("1c8f4a2e-6d0b-5f57-9c1a-0c8d5a7e4b36")


class DeliveryState(StrEnum):
    """How a delivery stands: it is tried again while it is `pending`, and never more after that."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GONE = "gone"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class WebhookDelivery:
    """What one receiver is to be told, held by whoever claimed it.

    `attempts` counts this one. `age_s` is how many seconds ago it was first tried.
    """

    id: str
    receiver: str
    deliberation_id: str
    event: str
    ended_at: datetime
    attempts: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt ended: the state from now on, and while that is `pending`, after how many seconds it is tried again.

    `status` is what the receiver answered, None where it did not; `problem` says in a few words what was wrong, and names no address.
    """

    state: DeliveryState
    wait_s: float = 0.0
    status: int | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ListedDelivery:
    """A delivery as an operator sees it; `next_at` is when it is tried again, None where it is not."""

    id: str
    receiver: str
    deliberation_id: str
    event: str
    state: DeliveryState
    attempts: int
    ended_at: datetime
    next_at: datetime | None
    settled_at: datetime | None
    status: int | None
    problem: str | None


class WebhookOutbox(Protocol):
    """Loses nothing that was committed: each deliberation that ends after a receiver was first gathered for becomes one delivery to it.

    A delivery is held by one claimant at a time, who has to settle it before its lease runs out; else another claims it, under
    the same id. Raises `DependencyUnavailableError` when the store is away; then nothing of that call is stored.
    """

    async def gather(self, receiver: str, *, key_name: str | None = None) -> int:
        """Keep a delivery for each deliberation that ended since the last time; returns for how many, 1,000 at most at a time.

        With `key_name` only those of that API key. What ended before the first time is not told.
        """
        ...

    async def claim(self, receiver: str, *, lease: str, lease_s: float, limit: int) -> Sequence[WebhookDelivery]:
        """Deliveries whose time has come, first come first served, held under `lease` from now on. One claimant wins each."""
        ...

    async def settle(self, delivery_id: str, *, lease: str, attempt: Attempt) -> bool:
        """Store how the attempt ended, and let go; False, and nothing stored, where it is not held under `lease` any more."""
        ...

    async def release(self, lease: str) -> int:
        """Let go of everything that is held under `lease`, to be tried at once; returns how much that was."""
        ...

    async def pending(self) -> Mapping[str, int]:
        """How many deliveries wait or are under way, by receiver; nothing of one without any."""
        ...

    async def listed(self, *, state: DeliveryState | None, limit: int) -> Sequence[ListedDelivery]:
        """Deliveries, the latest ends first."""
        ...

    async def forget(self, *, older_than_s: float) -> int:
        """Remove those that were settled longer ago than that; returns how many."""
        ...


def delivery_id(receiver: str, deliberation_id: str) -> str:
    """What a delivery is called at every attempt, whoever makes it and whatever was restored meanwhile (RFC 9562 version 5)."""
    return str(uuid5(_DELIVERIES, f"{receiver}\n{deliberation_id}"))


def event_of(status: DeliberationStatus) -> str:
    """The terminal event of a deliberation that ended so."""
    return f"deliberation.{status.value}"
