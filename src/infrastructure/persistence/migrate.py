"""Brings a database to the tables of this version, and says which version it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from infrastructure.persistence.engine import WRITES, open_sync_engine
from infrastructure.persistence.failures import translated_failures
from infrastructure.persistence.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["current_revision", "downgrade", "is_current", "latest_revision", "run_in_environment", "upgrade"]

# Held on Postgres while a schema is changed; the number means nothing but must be the same in every process.
_MIGRATION_LOCK = 7_226_072_002
_PATIENCE_S = 60.0


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`: wholly, or not at all. Blocks; from an event loop call it in a thread.

    Of several processes that upgrade at once one does it and the others wait up to a minute. Raises `ConfigurationError` for a URL
    that cannot be used and `DependencyUnavailableError` when the database is away.
    """
    from alembic import command

    with _migrating(url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`; what the tables of later ones held is lost. Otherwise as `upgrade`."""
    from alembic import command

    with _migrating(url) as connection:
        command.downgrade(_config(connection), revision)


def current_revision(url: str) -> str | None:
    """The revision that the database at `url` has, None before the first. Blocks, and raises as `upgrade` does."""
    from alembic.runtime.migration import MigrationContext

    engine = open_sync_engine(url)
    with translated_failures(), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def latest_revision() -> str | None:
    """The revision that this version of Conclave works with."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config(None)).get_current_head()


def is_current(url: str) -> bool:
    """Whether the database at `url` has the tables of this version. Blocks, and raises as `upgrade` does."""
    return current_revision(url) == latest_revision()


def run_in_environment(context: ModuleType, url: str | None) -> None:
    """What `migrations/env.py` does: run what was asked for on the connection of `upgrade`, or on the database at `url`.

    `context` is `alembic.context`.
    """
    connection = context.config.attributes.get("connection")
    if connection is not None:
        _run(context, connection)
        return
    if url is None:
        raise SystemExit("CONCLAVE_DATABASE_URL: is not set. Set it to the database to migrate.")
    with _migrating(url) as opened:
        _run(context, opened)


def _run(context: ModuleType, connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True, compare_type=True
    )
    with context.begin_transaction():
        context.run_migrations()


@contextmanager
def _migrating(url: str) -> Iterator[Connection]:
    """A connection in a transaction that keeps every other migration out until it ends."""
    engine = open_sync_engine(url, busy_timeout_s=_PATIENCE_S).execution_options(**{WRITES: True})
    with translated_failures(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_S:g}s'")
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        yield connection


def _config(connection: Connection | None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _folder() -> Path:
    """Where the migrations lie: in an installed Conclave beside this file, in a checkout at its root."""
    installed = Path(__file__).parent / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "migrations"
