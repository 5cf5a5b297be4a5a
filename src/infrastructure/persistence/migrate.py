"""Brings a database to the tables of this version, and says which version it has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sqlalchemy import URL, Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, func, inspect, select
from sqlalchemy.exc import DBAPIError

from domain.errors.configuration import ConfigurationError
from infrastructure.persistence.engine import WRITES, database_url, open_sync_engine
from infrastructure.persistence.failures import translated_failures
from infrastructure.persistence.privileges import grant
from infrastructure.persistence.tables import metadata

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["current_revision", "downgrade", "is_current", "latest_revision", "run_in_environment", "upgrade"]

# Held on Postgres while a schema is changed; the number means nothing but must be the same in every process.
_MIGRATION_LOCK = 7_226_072_002
_PATIENCE_S = 60.0
# A name that is there already: SQLite has no code for it, Postgres one for each kind of thing (Appendix A of its manual).
_TAKEN_ON_SQLITE = re.compile(r"already exists|already (a|an) (table|index|view) named")
_TAKEN_ON_POSTGRES = frozenset({"42P06", "42P07", "42710", "42723"})
# As alembic makes it.
_VERSION = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def upgrade(url: str, revision: str = "head", *, application_url: str | None = None) -> None:
    """Bring the database at `url` to `revision`: wholly, or not at all. Blocks; from an event loop call it in a thread.

    A new SQLite file gets the tables of this version at once; every other database goes from revision to revision. Of several processes
    that upgrade at once one does it and the others wait up to a minute. A database that is there already costs one look. The role that
    `application_url` names, unless it is that of `url`, gets its rights on the tables of the head, and is made if it is missing. Raises
    `ConfigurationError` for a URL that cannot be used, a role that may not do this, a database that a newer Conclave has made, and one in
    which another program's tables are in the way; and `DependencyUnavailableError` when the database is away.
    """
    if revision == "head" and application_url is None and is_current(url):
        return

    with _migrating(url) as connection:
        if revision == "head" and _is_new_file(connection):
            _build(connection)
        else:
            from alembic import command

            command.upgrade(_config(connection), revision)
        if revision == "head" and application_url is not None:
            _let_in(connection, database_url(application_url))


def downgrade(url: str, revision: str) -> None:
    """Take the database at `url` back to `revision`; what the tables of later ones held is lost. Otherwise as `upgrade`."""
    from alembic import command

    with _migrating(url) as connection:
        command.downgrade(_config(connection), revision)


def current_revision(url: str) -> str | None:
    """The revision that the database at `url` has, None before the first. Blocks, and raises as `upgrade` does."""
    engine = open_sync_engine(url)
    with translated_failures(), engine.connect() as connection:
        return _known_revision(connection)


def latest_revision() -> str:
    """The revision that this version of Conclave works with: its number leads the name of the last migration's file."""
    return max(_revisions())


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


def _revisions() -> frozenset[str]:
    # Read off the names, because asking alembic would cost every start a third of a second.
    return frozenset(path.name.partition("_")[0] for path in (_folder() / "versions").glob("[0-9]*.py"))


def _known_revision(connection: Connection) -> str | None:
    """The revision that is stored, None before the first. Raises `ConfigurationError` for one that no migration of this version makes."""
    if not inspect(connection).has_table(_VERSION.name):
        return None
    revision = connection.execute(select(_VERSION.c.version_num)).scalar()
    if revision is None or revision in _revisions():
        return revision
    latest = latest_revision()
    if revision.isdecimal() and int(revision) > int(latest):
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL",
            problem=f"the database was made by a newer Conclave: revision {revision}, this one knows up to {latest}",
            remedy="Upgrade this program to the version that made it, or restore a backup from before.",
        )
    raise ConfigurationError(
        variable="CONCLAVE_DATABASE_URL",
        problem=f"the database was made by another program: its revision is {revision!r}, those of Conclave go up to {latest}",
        remedy="Name a database of Conclave's own.",
    )


def _is_new_file(connection: Connection) -> bool:
    # On Postgres the tables of the queue come from a migration.
    return connection.dialect.name == "sqlite" and not inspect(connection).get_table_names()


def _build(connection: Connection) -> None:
    """What the migrations would build, without alembic: its modules and theirs would stay in memory, 11 MiB of them."""
    # Nothing is passed over: what has a name of ours already, such as a view, is not ours.
    metadata.create_all(connection, checkfirst=False)
    _VERSION.create(connection)
    connection.execute(_VERSION.insert().values(version_num=latest_revision()))


def _let_in(connection: Connection, application: URL) -> None:
    if application.get_backend_name() != connection.dialect.name:
        raise ConfigurationError(
            variable="CONCLAVE_OWNER_DATABASE_URL",
            problem="names another kind of database than CONCLAVE_DATABASE_URL",
            remedy="Name the same Postgres in both, with different users.",
        )
    if connection.dialect.name != "postgresql":
        return
    if application.username is None:
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL",
            problem="names no user, so nobody can be given rights",
            remedy="Use postgresql://USER:PASSWORD@HOST/NAME.",
        )
    if application.username != connection.execute(select(func.current_user())).scalar():
        grant(connection, application.username, application.password)


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
    with translated_failures(), _strangers_refused(), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_S:g}s'")
            connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        _known_revision(connection)
        yield connection


@contextmanager
def _strangers_refused() -> Iterator[None]:
    """Within it what cannot be made, because its name is taken, is the table of another program."""
    try:
        yield
    except DBAPIError as error:
        said = str(error.orig).partition("\n")[0]
        if getattr(error.orig, "sqlstate", None) not in _TAKEN_ON_POSTGRES and not _TAKEN_ON_SQLITE.search(said):
            raise
        raise ConfigurationError(
            variable="CONCLAVE_DATABASE_URL",
            problem=f"the database holds what another program has made ({said})",
            remedy="Name a database of Conclave's own.",
        ) from error


def _config(connection: Connection) -> Config:
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
