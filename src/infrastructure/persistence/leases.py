"""Statements by which processes share out the work: who works on what, until when, and what is to be cancelled.

Whoever holds a deliberation does so under a text that nobody uses twice (`PROCESS/NUMBER`), which every append of the holder names:
what another holds by now takes nothing more from the one before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select, tuple_, update

from application.ports.clock import Clock
from application.ports.deliberation_repository import Renewal, Waiting
from domain.errors.deliberation import DeliberationEndedError, DeliberationNotFoundError
from domain.models.deliberation import DeliberationStatus
from infrastructure.persistence.tables import Moment, deliberations

__all__ = [
    "UNFINISHED",
    "LeaseClock",
    "claim",
    "holders",
    "release",
    "release_process",
    "renew",
    "request_cancel",
    "waiting",
]

UNFINISHED = tuple(status.value for status in DeliberationStatus if not status.is_terminal)

_OF = deliberations.c
# Made once, because making a statement takes longer than running it.
_HOLDERS = select(_OF.id, _OF.lease_owner).where(_OF.id.in_(bindparam("these", expanding=True))).order_by(_OF.id)
_DATABASE_NOW = func.clock_timestamp(type_=Moment)
_LOCKED_HOLDERS = _HOLDERS.with_for_update()


class LeaseClock:
    """Times leases by a clock, or without one by the database's own, so that hosts whose clocks differ agree."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock

    def now(self, connection: Connection) -> datetime:
        """This moment."""
        if self._clock is not None:
            return self._clock.now()
        return connection.execute(select(_DATABASE_NOW)).scalar_one()

    def beside(self, connection: Connection, question: Select[tuple[Any]]) -> tuple[Any, datetime]:
        """The answer to a question of one value, and this moment, by one question where the database has to be asked for both."""
        if self._clock is not None:
            return connection.execute(question).scalar(), self._clock.now()
        answer, now = connection.execute(question.add_columns(_DATABASE_NOW)).one()
        return answer, now


def waiting(connection: Connection, clock: LeaseClock, *, limit: int, begun_only: bool) -> list[Waiting]:
    """Unfinished deliberations that nobody holds, oldest first; with `begun_only` those that are running."""
    statuses = [DeliberationStatus.RUNNING.value] if begun_only else UNFINISHED
    question = select(_OF.id, _OF.key_name).where(_OF.status.in_(statuses), _is_free(clock.now(connection)))
    return [
        Waiting(own, key_name) for own, key_name in connection.execute(question.order_by(_OF.position).limit(limit))
    ]


def claim(connection: Connection, clock: LeaseClock, deliberation_id: str, *, lease: str, lease_s: float) -> bool:
    """Whether it is held under `lease` from now on."""
    now = clock.now(connection)
    taken = update(deliberations).where(_OF.id == deliberation_id, _OF.status.in_(UNFINISHED), _is_free(now))
    values = {"lease_owner": lease, "lease_until": now + timedelta(seconds=lease_s)}
    return connection.execute(taken.values(values)).rowcount == 1


def holders(
    connection: Connection, deliberation_ids: Collection[str], *, lock: bool = False
) -> Mapping[str, str | None]:
    """Under which lease each of these is held; with `lock` (on Postgres) so until the transaction ends."""
    question = _LOCKED_HOLDERS if lock else _HOLDERS
    rows = connection.execute(question, {"these": list(deliberation_ids)}).all()
    return {row.id: row.lease_owner for row in rows}


def renew(connection: Connection, clock: LeaseClock, leases: Mapping[str, str], *, lease_s: float) -> Renewal:
    """Hold each of these for longer where it is held under its lease."""
    if not leases:
        return Renewal()
    held = _held(leases)
    until = clock.now(connection) + timedelta(seconds=lease_s)
    connection.execute(update(deliberations).where(held).values(lease_until=until))
    found = connection.execute(
        select(_OF.id, _OF.cancel_requested).where(held, _OF.status.in_(UNFINISHED)).order_by(_OF.position)
    ).all()
    kept = {row.id for row in found}
    return Renewal(
        cancelled=[row.id for row in found if row.cancel_requested],
        lost=[own for own in leases if own not in kept],
    )


def release(connection: Connection, leases: Mapping[str, str]) -> None:
    """Let go of those of these that are held under their lease."""
    if leases:
        connection.execute(update(deliberations).where(_held(leases)).values(lease_owner=None, lease_until=None))


def release_process(connection: Connection, process: str) -> int:
    """Let go of everything that this process holds; returns how much that was."""
    theirs = _OF.status.in_(UNFINISHED), _OF.lease_owner.startswith(f"{process}/", autoescape=True)
    return connection.execute(update(deliberations).where(*theirs).values(lease_owner=None, lease_until=None)).rowcount


def request_cancel(connection: Connection, deliberation_id: str) -> None:
    """Mark it as to be cancelled. Raises `DeliberationNotFoundError` and `DeliberationEndedError`."""
    own = _OF.id == deliberation_id
    asked = update(deliberations).where(own, _OF.status.in_(UNFINISHED)).values(cancel_requested=True)
    if connection.execute(asked).rowcount == 0:
        status = connection.execute(select(_OF.status).where(own)).scalar()
        if status is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        raise DeliberationEndedError(deliberation_id=deliberation_id, status=status)


def _is_free(now: datetime) -> ColumnElement[bool]:
    return or_(_OF.lease_owner.is_(None), _OF.lease_until < now)


def _held(leases: Mapping[str, str]) -> ColumnElement[bool]:
    return tuple_(_OF.id, _OF.lease_owner).in_(list(leases.items()))
