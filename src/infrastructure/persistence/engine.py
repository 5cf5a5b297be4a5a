"""Opens engines on the database that a URL names, and refuses one that would forget what it has acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, QueuePool

from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["WRITES", "database_url", "open_async_engine", "open_sync_engine", "require_durable"]

WRITES = "conclave_writes"
"""Execution option of engines that mean to write: on SQLite their transactions take the write lock at once."""

_VARIABLE = "CONCLAVE_DATABASE_URL"
_DRIVERS = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "postgresql+psycopg": "postgresql+psycopg"}
_FORMS = "Use sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME or postgresql+psycopg://..."
_DURABLE_COMMITS = frozenset({"on", "remote_apply"})
_FULL = 2
_REST_S = 0.5
# That a connection remembers: a batch of writes has some 19 sizes in each of four tables, beside everything else.
_STATEMENTS = 256


def database_url(url: str | URL) -> URL:
    """The URL with the driver that Conclave uses. Raises `ConfigurationError`, which holds no user, password or host."""
    if isinstance(url, URL):
        return url
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(variable=_VARIABLE, problem="is no database URL", remedy=_FORMS) from None
    driver = _DRIVERS.get(address.drivername)
    if driver is None:
        raise ConfigurationError(
            variable=_VARIABLE, problem=f"names an unknown database {address.drivername!r}", remedy=_FORMS
        )
    if address.drivername == "sqlite":
        if address.host or address.username or address.query:
            raise ConfigurationError(
                variable=_VARIABLE,
                problem="has more than a path",
                remedy="Use sqlite:///PATH, an absolute PATH with its slash.",
            )
        if not address.database or address.database.startswith((":memory:", "file:")):
            raise ConfigurationError(
                variable=_VARIABLE, problem="names no file, so nothing would be kept", remedy="Use sqlite:///PATH."
            )
    return address.set(drivername=driver)


def open_sync_engine(url: str | URL, *, connections: int = 0, busy_timeout_s: float = 5.0) -> Engine:
    """An engine for threads, with a pool of that many connections or, by default, none.

    On SQLite whoever writes waits `busy_timeout_s` for the lock of another process. Raises `ConfigurationError` for a URL that
    cannot be used; connecting raises it for a database that does not keep what it acknowledges.
    """
    address = database_url(url)
    is_sqlite = address.get_backend_name() == "sqlite"
    # Python's own control of SQLite's transactions begins too late and never IMMEDIATE: it is off, `_begin_sqlite` replaces it.
    arguments: dict[str, Any] = {"connect_timeout": 5}
    if is_sqlite:
        arguments = {"isolation_level": None, "timeout": busy_timeout_s, "cached_statements": _STATEMENTS}
    pool: dict[str, Any] = {"poolclass": NullPool}
    if connections:
        pool = {"poolclass": QueuePool, "pool_size": connections, "max_overflow": 0}
    engine = create_engine(address, connect_args=arguments, hide_parameters=True, **pool)
    if is_sqlite:
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgres)
    return engine


def open_async_engine(url: str | URL, *, connections: int, connect_timeout_s: int = 5) -> AsyncEngine:
    """An engine on Postgres for the event loop, with at most that many connections, each tested before it is used after a rest.

    Waiting for a connection, new or free, ends after `connect_timeout_s`. Raises as `open_sync_engine` does.
    """
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        database_url(url),
        connect_args={"connect_timeout": connect_timeout_s},
        pool_size=connections,
        max_overflow=0,
        pool_timeout=connect_timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    event.listen(engine.sync_engine, "connect", _prepare_postgres)
    _rest_before_tests(engine.sync_engine)
    return engine


def _rest_before_tests(engine: Engine) -> None:
    """Test only those connections that were not used in the last half second: each test is a question to the database."""
    used: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
    test: Callable[[Any], bool] = engine.dialect.do_ping

    def note(connection: Any, _: object) -> None:
        if connection is not None:
            used[connection.driver_connection] = time.monotonic()

    def is_alive(connection: Any) -> bool:
        return time.monotonic() - used.get(connection.driver_connection, 0.0) < _REST_S or test(connection)

    event.listen(engine, "checkin", note)
    engine.dialect.do_ping = is_alive  # type: ignore[assignment, method-assign]


def require_durable(connection: Connection) -> None:
    """Ask the database whether a commit is on disk before it is acknowledged. Raises `ConfigurationError` when it is not."""

    def ask(question: str) -> Any:
        return connection.exec_driver_sql(question).scalar()

    if connection.dialect.name == "sqlite":
        _require_durable_sqlite(ask("PRAGMA journal_mode"), ask("PRAGMA synchronous"))
        return
    for setting, durable in (("fsync", {"on"}), ("synchronous_commit", _DURABLE_COMMITS)):
        value = ask(f"SHOW {setting}")
        if value not in durable:
            raise ConfigurationError(
                variable=_VARIABLE,
                problem=f"names a Postgres with {setting} = {value!r}, which loses what it acknowledged in a crash",
                remedy=f"Set {setting} = on.",
            )


def _require_durable_sqlite(journal_mode: Any, synchronous: Any) -> None:
    if journal_mode != "wal":
        raise ConfigurationError(
            variable=_VARIABLE,
            problem=f"names a SQLite file that stays in journal mode {journal_mode!r} instead of WAL",
            remedy="Use a local disk: a network file system cannot do it.",
        )
    if synchronous < _FULL:
        raise ConfigurationError(
            variable=_VARIABLE,
            problem=f"names a SQLite file opened with synchronous = {synchronous!r}, which loses what it acknowledged in a crash",
            remedy="Set synchronous = FULL.",
        )


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA journal_mode = WAL")
        (journal_mode,) = cursor.fetchone() or (None,)
        cursor.execute("PRAGMA synchronous = FULL")
        # Where fsync leaves data in the drive's own cache (macOS) this does not; elsewhere it changes nothing.
        cursor.execute("PRAGMA fullfsync = ON")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA recursive_triggers = ON")
        cursor.execute("PRAGMA synchronous")
        (synchronous,) = cursor.fetchone() or (0,)
        _require_durable_sqlite(journal_mode, synchronous)
    except BaseException:
        cursor.close()
        connection.close()
        raise
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgres(connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW synchronous_commit")
        (value,) = cursor.fetchone() or (None,)
        if value not in _DURABLE_COMMITS:
            cursor.execute("SET synchronous_commit = on")
    finally:
        cursor.close()
    connection.commit()
