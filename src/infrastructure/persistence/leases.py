"""Statements by which processes share out the work: who works on what, until when, and what is to be cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, or_, select, update

from application.ports.clock import Clock
from domain.errors.deliberation import DeliberationEndedError, DeliberationNotFoundError
from domain.models.deliberation import DeliberationStatus
from infrastructure.persistence.rows import DELIBERATION_COLUMNS
from infrastructure.persistence.tables import Moment, deliberations, specifications

__all__ = ["UNFINISHED", "LeaseClock", "claim", "release", "renew", "request_cancel"]

UNFINISHED = tuple(status.value for status in DeliberationStatus if not status.is_terminal)

_OF = deliberations.c


class LeaseClock:
    """Times leases by a clock, or without one by the database's own, so that hosts whose clocks differ agree."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock

    def now(self, connection: Connection) -> datetime:
        """This moment."""
        if self._clock is not None:
            return self._clock.now()
        return connection.execute(select(func.clock_timestamp(type_=Moment))).scalar_one()


def claim(connection: Connection, clock: LeaseClock, *, owner: str, lease_s: float, limit: int) -> Sequence[Row[Any]]:
    """Rows of `DELIBERATION_COLUMNS` that `owner` holds from now on, oldest first. Never waits for another claimant."""
    now = clock.now(connection)
    free = or_(_OF.lease_owner.is_(None), _OF.lease_until < now)
    rows = connection.execute(
        select(*DELIBERATION_COLUMNS)
        .join(specifications)
        .where(_OF.status.in_(UNFINISHED), free)
        .order_by(_OF.position)
        .limit(limit)
        .with_for_update(of=deliberations, key_share=True, skip_locked=True)
    ).all()
    if rows:
        held = update(deliberations).where(_OF.id.in_([row.id for row in rows]))
        connection.execute(held.values(lease_owner=owner, lease_until=now + timedelta(seconds=lease_s)))
    return rows


def renew(
    connection: Connection, clock: LeaseClock, deliberation_ids: Sequence[str], *, owner: str, lease_s: float
) -> Sequence[str]:
    """Hold those of these that `owner` holds for longer; returns those of them that are to be cancelled."""
    held = (_OF.id.in_(deliberation_ids), _OF.lease_owner == owner)
    until = clock.now(connection) + timedelta(seconds=lease_s)
    connection.execute(update(deliberations).where(*held).values(lease_until=until))
    return (
        connection.execute(
            select(_OF.id).where(*held, _OF.cancel_requested, _OF.status.in_(UNFINISHED)).order_by(_OF.position)
        )
        .scalars()
        .all()
    )


def release(connection: Connection, deliberation_ids: Sequence[str], *, owner: str) -> None:
    """Let go of those of these that `owner` holds."""
    held = update(deliberations).where(_OF.id.in_(deliberation_ids), _OF.lease_owner == owner)
    connection.execute(held.values(lease_owner=None, lease_until=None))


def request_cancel(connection: Connection, deliberation_id: str) -> None:
    """Mark it as to be cancelled. Raises `DeliberationNotFoundError` and `DeliberationEndedError`."""
    own = _OF.id == deliberation_id
    asked = update(deliberations).where(own, _OF.status.in_(UNFINISHED)).values(cancel_requested=True)
    if connection.execute(asked).rowcount == 0:
        status = connection.execute(select(_OF.status).where(own)).scalar()
        if status is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        raise DeliberationEndedError(deliberation_id=deliberation_id, status=status)
