"""The halt as a row of the database, over connections of its own, so that it is read and set while all others are in use."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, select, update
from sqlalchemy.exc import DBAPIError

from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import ChannelReading
from infrastructure.persistence.engine import WRITES, database_url, open_sync_engine
from infrastructure.persistence.failures import translated_failures
from infrastructure.persistence.same_file import file_identity
from infrastructure.persistence.tables import halt_state

__all__ = ["SqlHaltChannel"]

_NAME = "database"
_T = TypeVar("_T")

_CONNECTIONS = 2
_BUSY_S = 1.0
_ROW = halt_state.c.id == 1
# A server that is gone without a word is noticed after a few seconds rather than after hours (libpq, 34.1.2).
_NOTICE = {
    "connect_timeout": "2",
    "keepalives": "1",
    "keepalives_idle": "1",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "3000",
}


class SqlHaltChannel:
    """`HaltChannel` over the one row of `halt_state`. Takes part in no transaction but its own.

    A database that is away, and a row or table that is missing, are a channel that is away; it is never made anew.
    """

    name = _NAME

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises `ConfigurationError` for a URL that cannot be used."""
        self._address = _attentive(database_url(url))
        self._opening = threading.Lock()
        self._engine: Engine | None = None
        self._writing: Engine | None = None
        self._file: tuple[int, int] | None = None

    def read(self) -> ChannelReading:
        """As in `HaltChannel`."""

        def work(connection: Connection) -> ChannelReading:
            row = connection.execute(select(halt_state).where(_ROW)).one_or_none()
            if row is None:
                raise HaltChannelUnreachableError(channel=_NAME, problem="the row that says so is missing")
            if not row.halted:
                return ChannelReading(halted=False)
            return ChannelReading(halted=True, reason=row.reason, since=row.since)

        return self._transact(work, writes=False)

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`."""

        def work(connection: Connection) -> bool:
            clear_one = _ROW, halt_state.c.halted.is_(False)
            changed = connection.execute(
                update(halt_state).where(*clear_one).values(halted=True, reason=reason, since=since)
            )
            return _changed(connection, changed.rowcount)

        return self._transact(work, writes=True)

    def clear(self) -> bool:
        """As in `HaltChannel`."""

        def work(connection: Connection) -> bool:
            set_one = _ROW, halt_state.c.halted.is_(True)
            changed = connection.execute(
                update(halt_state).where(*set_one).values(halted=False, reason=None, since=None)
            )
            return _changed(connection, changed.rowcount)

        return self._transact(work, writes=True)

    def close(self) -> None:
        """As in `HaltChannel`."""
        with self._opening:
            engine, self._engine, self._writing = self._engine, None, None
        if engine is not None:
            engine.dispose()

    def _transact(self, work: Callable[[Connection], _T], *, writes: bool) -> _T:
        with _translated():
            try:
                return self._once(work, writes=writes)
            except DBAPIError as error:
                # A connection that the server has closed meanwhile says nothing about whether it is there now.
                if not error.connection_invalidated:
                    raise
            return self._once(work, writes=writes)

    def _once(self, work: Callable[[Connection], _T], *, writes: bool) -> _T:
        engine = self._open(writes=writes)
        with engine.connect() as connection:
            result = work(connection)
            if writes:
                connection.commit()
            return result

    def _open(self, *, writes: bool) -> Engine:
        with self._opening:
            present = file_identity(self._address)
            if self._file != present and self._engine is not None:
                self._engine.dispose()
            self._file = present
            if self._engine is None or self._writing is None:
                self._engine = open_sync_engine(self._address, connections=_CONNECTIONS, busy_timeout_s=_BUSY_S)
                self._writing = self._engine.execution_options(**{WRITES: True})
            return self._writing if writes else self._engine


def _changed(connection: Connection, rows: int) -> bool:
    if rows == 0 and connection.execute(select(halt_state.c.id).where(_ROW)).one_or_none() is None:
        raise HaltChannelUnreachableError(channel=_NAME, problem="the row that says so is missing")
    return rows == 1


def _attentive(address: URL) -> URL:
    if address.get_backend_name() == "sqlite":
        return address
    return address.update_query_dict({name: value for name, value in _NOTICE.items() if name not in address.query})


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        with translated_failures():
            yield
    except DependencyUnavailableError as error:
        raise HaltChannelUnreachableError(channel=_NAME, problem=error.problem) from error
    except DBAPIError as error:
        problem = f"it refuses the statement ({type(error.orig).__name__})"
        raise HaltChannelUnreachableError(channel=_NAME, problem=problem) from error
