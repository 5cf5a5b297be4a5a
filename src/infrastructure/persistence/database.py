"""A database as the adapters of this folder use it: whole transactions, written as plain functions of a connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

from sqlalchemy import URL, Connection, Dialect

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.engine import (
    WRITES,
    database_url,
    open_async_engine,
    open_sync_engine,
    require_durable,
)
from infrastructure.persistence.failures import translated_failures

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Database", "PostgresDatabase", "SqliteDatabase", "open_database"]

_T = TypeVar("_T")

_SQLITE_READERS = 2
_POSTGRES_CONNECTIONS = 5
_PATIENCE_S = 15.0


class Database(Protocol):
    """Runs transactions without blocking the event loop. What `write` returned is on disk; what `read` sees is committed.

    Raises `DependencyUnavailableError` when the database is away, and whatever the work raises, after a rollback.
    """

    @property
    def url(self) -> URL:
        """Where it is; holds the password."""
        ...

    @property
    def dialect(self) -> Dialect:
        """Which SQL it speaks."""
        ...

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` makes of a transaction that sees one moment and is rolled back."""
        ...

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """What `work` returned, once everything that it wrote is durable."""
        ...

    async def close(self) -> None:
        """Let every connection go, once running transactions have ended; whoever comes later is refused."""
        ...


async def open_database(url: str, *, busy_timeout_s: float = 5.0) -> Database:
    """The database at `url`, its durability checked; the caller closes it.

    On SQLite a writer waits `busy_timeout_s` for the lock of another process. Raises `ConfigurationError` for a URL that cannot be
    used or a database that loses what it acknowledged, and `DependencyUnavailableError` when it cannot be reached.
    """
    address = database_url(url)
    database: Database
    if address.get_backend_name() == "sqlite":
        database = SqliteDatabase(address, busy_timeout_s=busy_timeout_s)
    else:
        database = PostgresDatabase(open_async_engine(address, connections=_POSTGRES_CONNECTIONS))
    try:
        await database.read(require_durable)
    except BaseException:
        await database.close()
        raise
    return database


class SqliteDatabase:
    """One SQLite file. Each transaction is one visit to a thread, whatever the number of its statements.

    That is measured: the asynchronous driver visits its thread for every statement and takes twice the time.
    """

    def __init__(self, url: URL, *, busy_timeout_s: float) -> None:
        self.url = url
        self._closed = False
        self._reading = open_sync_engine(url, connections=_SQLITE_READERS, busy_timeout_s=busy_timeout_s)
        self._writing = open_sync_engine(url, connections=1, busy_timeout_s=busy_timeout_s).execution_options(
            **{WRITES: True}
        )
        self._readers = ThreadPoolExecutor(_SQLITE_READERS, thread_name_prefix="conclave-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="conclave-write")

    @property
    def dialect(self) -> Dialect:
        """That of SQLite."""
        return self._reading.dialect

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """As in `Database`: a snapshot of the file."""

        _refuse(closed=self._closed)

        def transact() -> _T:
            with self._reading.connect() as connection:
                return work(connection)

        with translated_failures():
            return await asyncio.get_running_loop().run_in_executor(self._readers, transact)

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """As in `Database`."""

        _refuse(closed=self._closed)

        def transact() -> _T:
            with self._writing.begin() as connection:
                return work(connection)

        with translated_failures():
            return await asyncio.get_running_loop().run_in_executor(self._writer, transact)

    async def close(self) -> None:
        """As in `Database`."""
        self._closed = True
        for engine, threads in ((self._reading, self._readers), (self._writing, self._writer)):
            await asyncio.to_thread(threads.shutdown)
            engine.dispose()


class PostgresDatabase:
    """One Postgres database. A transaction that has not ended after `patience_s` seconds is given up."""

    def __init__(self, engine: AsyncEngine, *, patience_s: float = _PATIENCE_S) -> None:
        self.url = engine.url
        self._patience_s = patience_s
        self._closed = False
        self._engine = engine
        # A transaction of several statements otherwise sees, in each of them, what was committed by then.
        self._of_one_moment = engine.execution_options(isolation_level="REPEATABLE READ")

    @property
    def dialect(self) -> Dialect:
        """That of Postgres."""
        return self._engine.dialect

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """As in `Database`: a snapshot of the database."""
        _refuse(closed=self._closed)
        with translated_failures():
            async with asyncio.timeout(self._patience_s), self._of_one_moment.connect() as connection:
                return await connection.run_sync(work)

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """As in `Database`."""
        _refuse(closed=self._closed)
        with translated_failures():
            async with asyncio.timeout(self._patience_s), self._engine.begin() as connection:
                return await connection.run_sync(work)

    async def close(self) -> None:
        """As in `Database`."""
        self._closed = True
        await self._engine.dispose()


def _refuse(*, closed: bool) -> None:
    if closed:
        raise DependencyUnavailableError(
            dependency="database", problem="this process has closed it", remedy="Ask another process, or start again."
        )
