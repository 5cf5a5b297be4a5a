"""Tries whether a database takes writes, and leaves nothing of the trial in it."""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, insert

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.database import Database
from infrastructure.persistence.tables import webhook_cursors

__all__ = ["refuse_read_only", "try_to_write"]

# As much as a deliberation takes to be accepted, so that what is refused a moment later is not called well now. Random, because
# Postgres packs what repeats itself; in rows of less than an index of Postgres takes.
_ROWS = 32
_ROW_CHARACTERS = 2_000
# Pages of memory: what is beyond them SQLite writes to its file at once, and not only with the commit.
_SPILLING_AFTER = 4


class _TakenBackError(Exception):
    """Ends the trial's transaction without a commit."""


async def try_to_write(database: Database) -> None:
    """Write 64 KiB, and take them back. Raises `DependencyUnavailableError` where there is no room for them."""
    try:
        await database.write(_write)
    except _TakenBackError:
        return


def refuse_read_only(connection: Connection) -> None:
    """Raises `DependencyUnavailableError` where this transaction of a Postgres may only read. Writes nothing."""
    if (
        connection.dialect.name == "postgresql"
        and connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
    ):
        raise DependencyUnavailableError(
            dependency="database", problem="it is read-only", remedy="Use the primary server."
        )


def _write(connection: Connection) -> None:
    mark = secrets.token_hex(8)
    rows = [
        {"receiver": f"trial {mark} {number} {secrets.token_hex(_ROW_CHARACTERS // 2)}", "last_index": -1}
        for number in range(_ROWS)
    ]
    if connection.dialect.name != "sqlite":
        connection.execute(insert(webhook_cursors), rows)
        raise _TakenBackError
    pages = connection.exec_driver_sql("PRAGMA cache_size").scalar()
    try:
        connection.exec_driver_sql(f"PRAGMA cache_size = {_SPILLING_AFTER}")
        connection.execute(insert(webhook_cursors), rows)
    finally:
        connection.exec_driver_sql(f"PRAGMA cache_size = {pages}")
    raise _TakenBackError
