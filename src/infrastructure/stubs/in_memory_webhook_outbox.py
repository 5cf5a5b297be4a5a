"""Keeps in memory what webhooks are to be told, as the databases do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from application.ports.clock import Clock, SystemClock
from application.ports.webhook_outbox import (
    Attempt,
    DeliveryState,
    ListedDelivery,
    WebhookDelivery,
    delivery_id,
    event_of,
)
from domain.models.deliberation import Deliberation

__all__ = ["InMemoryWebhookOutbox"]

_AT_ONCE = 1_000


@dataclass(slots=True)
class _Kept:
    id: str
    receiver: str
    deliberation_id: str
    event: str
    ended_at: datetime
    next_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    first_attempt_at: datetime | None = None
    settled_at: datetime | None = None
    status: int | None = None
    problem: str | None = None
    lease_owner: str | None = None
    lease_until: datetime | None = None

    def is_due(self, receiver: str, now: datetime) -> bool:
        """Whether it may be claimed now."""
        is_free = self.lease_owner is None or (self.lease_until is not None and self.lease_until < now)
        waits = self.state is DeliveryState.PENDING and self.next_at <= now
        return self.receiver == receiver and waits and is_free


class InMemoryWebhookOutbox:
    """`WebhookOutbox` over the deliberations that `ended` returns: all that have ended, in the order of their ends."""

    def __init__(self, ended: Callable[[], Iterable[Deliberation]], *, clock: Clock | None = None) -> None:
        self._ended = ended
        self._clock = clock if clock is not None else SystemClock()
        self._seen: dict[str, int] = {}
        self._kept: dict[str, _Kept] = {}

    async def gather(self, receiver: str, *, key_name: str | None = None) -> int:
        """As in `WebhookOutbox`."""
        ends = list(self._ended())
        if receiver not in self._seen:
            self._seen[receiver] = len(ends)
            return 0
        new = ends[self._seen[receiver] :][:_AT_ONCE]
        self._seen[receiver] += len(new)
        now = self._clock.now()
        told = [end for end in new if key_name is None or end.key_name == key_name]
        for end in told:
            own = delivery_id(receiver, end.id)
            self._kept[own] = _Kept(own, receiver, end.id, event_of(end.status), end.finished_at or now, now)
        return len(told)

    async def claim(self, receiver: str, *, lease: str, lease_s: float, limit: int) -> Sequence[WebhookDelivery]:
        """As in `WebhookOutbox`."""
        now = self._clock.now()
        due = sorted(
            (kept for kept in self._kept.values() if kept.is_due(receiver, now)),
            key=lambda kept: (kept.next_at, kept.id),
        )
        claimed = []
        for kept in due[: max(limit, 0)]:
            kept.lease_owner, kept.lease_until = lease, now + timedelta(seconds=lease_s)
            kept.attempts += 1
            kept.first_attempt_at = kept.first_attempt_at or now
            age_s = (now - kept.first_attempt_at).total_seconds()
            claimed.append(
                WebhookDelivery(
                    kept.id, receiver, kept.deliberation_id, kept.event, kept.ended_at, kept.attempts, age_s
                )
            )
        return claimed

    async def settle(self, delivery_id: str, *, lease: str, attempt: Attempt) -> bool:
        """As in `WebhookOutbox`."""
        kept = self._kept.get(delivery_id)
        if kept is None or kept.lease_owner != lease or kept.state is not DeliveryState.PENDING:
            return False
        now = self._clock.now()
        kept.state, kept.status, kept.problem = attempt.state, attempt.status, attempt.problem
        kept.next_at = now + timedelta(seconds=attempt.wait_s)
        kept.settled_at = None if attempt.state is DeliveryState.PENDING else now
        kept.lease_owner = kept.lease_until = None
        return True

    async def release(self, lease: str) -> int:
        """As in `WebhookOutbox`."""
        held = [
            kept for kept in self._kept.values() if kept.lease_owner == lease and kept.state is DeliveryState.PENDING
        ]
        for kept in held:
            kept.lease_owner = kept.lease_until = None
        return len(held)

    async def pending(self) -> Mapping[str, int]:
        """As in `WebhookOutbox`."""
        return Counter(kept.receiver for kept in self._kept.values() if kept.state is DeliveryState.PENDING)

    async def listed(self, *, state: DeliveryState | None, limit: int) -> Sequence[ListedDelivery]:
        """As in `WebhookOutbox`."""
        found = [kept for kept in self._kept.values() if state is None or kept.state is state]
        found.sort(key=lambda kept: kept.id)
        found.sort(key=lambda kept: kept.ended_at, reverse=True)
        return [
            ListedDelivery(
                kept.id,
                kept.receiver,
                kept.deliberation_id,
                kept.event,
                kept.state,
                kept.attempts,
                kept.ended_at,
                kept.next_at if kept.state is DeliveryState.PENDING else None,
                kept.settled_at,
                kept.status,
                kept.problem,
            )
            for kept in found[:limit]
        ]

    async def forget(self, *, older_than_s: float) -> int:
        """As in `WebhookOutbox`."""
        horizon = self._clock.now() - timedelta(seconds=older_than_s)
        old = [own for own, kept in self._kept.items() if kept.settled_at is not None and kept.settled_at < horizon]
        for own in old:
            del self._kept[own]
        return len(old)
