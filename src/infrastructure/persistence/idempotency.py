"""Remembers for a day which deliberation a caller's idempotency key stands for, in the transaction that stores the deliberation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, text, tuple_

from application.ports.deliberation_repository import RememberedKey
from application.ports.idempotency import REMEMBERED_FOR, IdempotencyKey
from domain.errors.idempotency import IdempotencyKeyTakenError
from infrastructure.persistence.leases import LeaseClock
from infrastructure.persistence.tables import Moment, idempotency_keys

__all__ = ["find", "forget_body", "remember"]

# More than come, so that what has expired never piles up, and few enough that nobody waits for them.
_FORGOTTEN_FOR_EACH = 32

_OF = idempotency_keys.c
_PLACE = (_OF.scope == bindparam("scope"), _OF.idempotency_key == bindparam("key"))
_EXPIRED = _OF.created_at <= bindparam("horizon", type_=Moment)
# Made once, because making a statement takes longer than running it.
_FIND = select(_OF.deliberation_id, _OF.body_sha256, _OF.created_at).where(*_PLACE)
_FORGET_THIS = delete(idempotency_keys).where(*_PLACE, _EXPIRED)
_OLDEST = select(_OF.scope, _OF.idempotency_key).where(_EXPIRED).order_by(_OF.created_at).limit(bindparam("most"))
_FORGET = delete(idempotency_keys).where(tuple_(_OF.scope, _OF.idempotency_key).in_(_OLDEST))
_KEEP = text(
    "INSERT INTO idempotency_keys (scope, idempotency_key, body_sha256, deliberation_id, created_at) "
    "VALUES (:scope, :key, :body_sha256, :deliberation_id, :created_at) ON CONFLICT (scope, idempotency_key) DO NOTHING"
).bindparams(bindparam("created_at", type_=Moment))


def remember(connection: Connection, now: datetime, keys: Mapping[str, IdempotencyKey]) -> None:
    """Remember what the callers of these deliberations (by id; their rows are inserted already) call them, and forget some old keys.

    Raises `IdempotencyKeyTakenError` for the first key that stands for another one: then the transaction is to be rolled back. A
    process that is about to commit the same key is waited for.
    """
    if not keys:
        return
    horizon = {"horizon": now - REMEMBERED_FOR}
    connection.execute(_FORGET, {**horizon, "most": _FORGOTTEN_FOR_EACH * len(keys)})
    for deliberation_id, named in keys.items():
        place = {"scope": named.scope, "key": named.key}
        row = {**place, "body_sha256": named.body_sha256, "deliberation_id": deliberation_id, "created_at": now}
        while connection.execute(_KEEP, row).rowcount == 0:
            # It may have expired without being among the oldest.
            connection.execute(_FORGET_THIS, {**place, **horizon})
            found = connection.execute(_FIND, place).first()
            if found is not None:
                raise IdempotencyKeyTakenError(deliberation_id=found.deliberation_id, body_sha256=found.body_sha256)


def find(connection: Connection, clock: LeaseClock, *, scope: str, key: str) -> RememberedKey | None:
    """What the key stands for, None where it is unknown or older than a day."""
    found = connection.execute(_FIND, {"scope": scope, "key": key}).first()
    # Most keys are new: then the database is not asked for the time, which on Postgres is one more question to it.
    if found is None or found.created_at <= clock.now(connection) - REMEMBERED_FOR:
        return None
    return RememberedKey(found.deliberation_id, found.body_sha256)


def forget_body(connection: Connection, deliberation_id: str) -> None:
    """Keep what stands for the deliberation, and not the hash of the body, by which a guess at an erased text could be tried."""
    theirs = _OF.deliberation_id == deliberation_id
    for row in connection.execute(select(idempotency_keys).where(theirs)).all():
        connection.execute(
            delete(idempotency_keys).where(_OF.scope == row.scope, _OF.idempotency_key == row.idempotency_key)
        )
        connection.execute(insert(idempotency_keys).values({**row._mapping, "body_sha256": ""}))
