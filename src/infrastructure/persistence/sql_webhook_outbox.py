"""Keeps in SQLite or Postgres what webhooks are to be told, found by reading on from the last end that was seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, or_, select, text, update

from application.ports.clock import Clock, SystemClock
from application.ports.webhook_outbox import (
    Attempt,
    DeliveryState,
    ListedDelivery,
    WebhookDelivery,
    delivery_id,
    event_of,
)
from domain.models.deliberation import DeliberationStatus
from infrastructure.persistence.database import Database
from infrastructure.persistence.leases import LeaseClock
from infrastructure.persistence.tables import Moment, deliberations, webhook_cursors, webhook_deliveries, witness_head

__all__ = ["SqlWebhookOutbox"]

_AT_ONCE = 1_000
_OF = webhook_deliveries.c
_PENDING = DeliveryState.PENDING.value
_CURSOR = select(webhook_cursors.c.last_index).where(webhook_cursors.c.receiver == bindparam("receiver"))
_LOCKED_CURSOR = _CURSOR.with_for_update()
_BEGIN = text("INSERT INTO webhook_cursors (receiver, last_index) VALUES (:receiver, :last) ON CONFLICT DO NOTHING")
_ENDS = (
    select(
        deliberations.c.id,
        deliberations.c.status,
        deliberations.c.key_name,
        deliberations.c.finished_at,
        deliberations.c.last_index,
    )
    .where(deliberations.c.last_index > bindparam("after"))
    .order_by(deliberations.c.last_index)
    .limit(_AT_ONCE)
)
_KEEP = text(
    "INSERT INTO webhook_deliveries (id, receiver, deliberation_id, event, ended_at, state, attempts, next_at) "
    "VALUES (:id, :receiver, :deliberation_id, :event, :ended_at, :state, 0, :next_at) ON CONFLICT DO NOTHING"
).bindparams(bindparam("ended_at", type_=Moment), bindparam("next_at", type_=Moment))
_ADVANCE = (
    update(webhook_cursors)
    .where(webhook_cursors.c.receiver == bindparam("which"))
    .values(last_index=bindparam("reached"))
)
_COUNT = select(_OF.receiver, func.count()).where(_OF.state == _PENDING).group_by(_OF.receiver)


class SqlWebhookOutbox:
    """`WebhookOutbox` over one database.

    The ends of deliberations carry the index of their entry in the log, which grows with each commit and never has a gap behind it:
    whoever has seen one has seen all before it. So nothing is written when a deliberation ends, and what a crash left untold is read
    on from where the receiver's cursor stands.
    """

    def __init__(self, database: Database, *, clock: Clock | None = None) -> None:
        """`clock` times leases and pauses; without one Postgres does, and on SQLite the machine."""
        if clock is None and database.dialect.name == "sqlite":
            clock = SystemClock()
        self._database = database
        self._clock = LeaseClock(clock)

    async def gather(self, receiver: str, *, key_name: str | None = None) -> int:
        """As in `WebhookOutbox`; writes only where there is something to keep."""

        def is_due(connection: Connection) -> bool:
            last = connection.execute(_CURSOR, {"receiver": receiver}).scalar()
            return last is None or connection.execute(_ENDS, {"after": last}).first() is not None

        def keep(connection: Connection) -> int:
            last = connection.execute(_LOCKED_CURSOR, {"receiver": receiver}).scalar()
            if last is None:
                size = connection.execute(select(witness_head.c.tree_size)).scalar() or 0
                connection.execute(_BEGIN, {"receiver": receiver, "last": size - 1})
                return 0
            ends = connection.execute(_ENDS, {"after": last}).all()
            if not ends:
                return 0
            now = self._clock.now(connection)
            told = [
                {
                    "id": delivery_id(receiver, end.id),
                    "receiver": receiver,
                    "deliberation_id": end.id,
                    "event": event_of(DeliberationStatus(end.status)),
                    "ended_at": end.finished_at or now,
                    "state": _PENDING,
                    "next_at": now,
                }
                for end in ends
                if key_name is None or end.key_name == key_name
            ]
            if told:
                connection.execute(_KEEP, told)
            connection.execute(_ADVANCE, {"which": receiver, "reached": ends[-1].last_index})
            return len(told)

        return await self._database.write(keep) if await self._database.read(is_due) else 0

    async def claim(self, receiver: str, *, lease: str, lease_s: float, limit: int) -> Sequence[WebhookDelivery]:
        """As in `WebhookOutbox`; writes only where something is due."""
        if limit <= 0:
            return []

        def is_due(connection: Connection) -> bool:
            due = select(_OF.id).where(*_due(receiver, self._clock.now(connection))).limit(1)
            return connection.execute(due).first() is not None

        def take(connection: Connection) -> list[WebhookDelivery]:
            now = self._clock.now(connection)
            # Of rows that another process is just claiming nobody has to wait to be refused.
            due = select(webhook_deliveries).where(*_due(receiver, now)).order_by(_OF.next_at, _OF.id)
            found = connection.execute(due.limit(limit).with_for_update(skip_locked=True)).all()
            for row in found:
                connection.execute(
                    update(webhook_deliveries)
                    .where(_OF.id == row.id)
                    .values(
                        lease_owner=lease,
                        lease_until=now + timedelta(seconds=lease_s),
                        attempts=row.attempts + 1,
                        first_attempt_at=row.first_attempt_at or now,
                    )
                )
            return [
                WebhookDelivery(
                    row.id,
                    row.receiver,
                    row.deliberation_id,
                    row.event,
                    row.ended_at,
                    row.attempts + 1,
                    (now - (row.first_attempt_at or now)).total_seconds(),
                )
                for row in found
            ]

        return await self._database.write(take) if await self._database.read(is_due) else []

    async def settle(self, delivery_id: str, *, lease: str, attempt: Attempt) -> bool:
        """As in `WebhookOutbox`."""

        def store(connection: Connection) -> bool:
            now = self._clock.now(connection)
            is_pending = attempt.state is DeliveryState.PENDING
            values: dict[str, Any] = {
                "state": attempt.state.value,
                "next_at": now + timedelta(seconds=attempt.wait_s),
                "settled_at": None if is_pending else now,
                "status": attempt.status,
                "problem": attempt.problem,
                "lease_owner": None,
                "lease_until": None,
            }
            held = (_OF.id == delivery_id, _OF.lease_owner == lease, _OF.state == _PENDING)
            return connection.execute(update(webhook_deliveries).where(*held).values(values)).rowcount == 1

        return await self._database.write(store)

    async def release(self, lease: str) -> int:
        """As in `WebhookOutbox`."""

        def let_go(connection: Connection) -> int:
            held = update(webhook_deliveries).where(_OF.state == _PENDING, _OF.lease_owner == lease)
            return connection.execute(held.values(lease_owner=None, lease_until=None)).rowcount

        return await self._database.write(let_go)

    async def pending(self) -> Mapping[str, int]:
        """As in `WebhookOutbox`."""
        return await self._database.read(lambda connection: {row[0]: row[1] for row in connection.execute(_COUNT)})

    async def listed(self, *, state: DeliveryState | None, limit: int) -> Sequence[ListedDelivery]:
        """As in `WebhookOutbox`."""
        question = select(webhook_deliveries).order_by(_OF.ended_at.desc(), _OF.id).limit(limit)
        if state is not None:
            question = question.where(_OF.state == state.value)

        def read(connection: Connection) -> list[ListedDelivery]:
            return [_listed(row) for row in connection.execute(question)]

        return await self._database.read(read)

    async def forget(self, *, older_than_s: float) -> int:
        """As in `WebhookOutbox`."""

        def remove(connection: Connection) -> int:
            horizon = self._clock.now(connection) - timedelta(seconds=older_than_s)
            old = delete(webhook_deliveries).where(_OF.state != _PENDING, _OF.settled_at < horizon)
            return connection.execute(old).rowcount

        return await self._database.write(remove)


def _due(receiver: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    is_free = or_(_OF.lease_owner.is_(None), _OF.lease_until < now)
    return (_OF.receiver == receiver, _OF.state == _PENDING, _OF.next_at <= now, is_free)


def _listed(row: Any) -> ListedDelivery:
    state = DeliveryState(row.state)
    return ListedDelivery(
        row.id,
        row.receiver,
        row.deliberation_id,
        row.event,
        state,
        row.attempts,
        row.ended_at,
        row.next_at if state is DeliveryState.PENDING else None,
        row.settled_at,
        row.status,
        row.problem,
    )
