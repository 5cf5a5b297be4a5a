"""Makes the tables of procrastinate, in a Postgres schema of their own, and brings them to the version that is installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, text

from domain.errors.configuration import ConfigurationError

__all__ = ["SCHEMA", "drop_schema", "make_schema"]

SCHEMA = "procrastinate"

_MARK = "conclave: procrastinate up to "
_FIND = text("SELECT obj_description(to_regnamespace(:schema), 'pg_namespace')")
_EXISTS = text("SELECT to_regnamespace(:schema) IS NOT NULL")


def make_schema(connection: Connection) -> None:
    """Bring the schema to the tables of the procrastinate that is installed, in the transaction of `connection`, as the owner.

    What it has is written down as the schema's comment, so that each of procrastinate's own migrations runs once: a Conclave
    that moves on to a later procrastinate calls this in a migration of its own. Raises `ConfigurationError` when somebody
    else made such a schema.
    """
    present = connection.execute(_EXISTS, {"schema": SCHEMA}).scalar()
    if not present:
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        wanted = [SchemaManager.get_schema()]
    else:
        comment = connection.execute(_FIND, {"schema": SCHEMA}).scalar() or ""
        if not comment.startswith(_MARK):
            raise ConfigurationError(
                variable="CONCLAVE_OWNER_DATABASE_URL",
                problem=f"names a database with a schema {SCHEMA!r} that Conclave did not make",
                remedy="Rename that schema, or give Conclave a database of its own.",
            )
        done = comment.removeprefix(_MARK)
        wanted = [path.read_text(encoding="utf-8") for path in _migrations() if path.name > done]
    with _within(connection):
        for script in wanted:
            # Without parameters the driver leaves percent signs alone and takes several statements at once.
            connection.exec_driver_sql(script, execution_options={"no_parameters": True})
    newest = _migrations()[-1].name
    connection.exec_driver_sql(f"COMMENT ON SCHEMA {SCHEMA} IS '{_MARK}{newest}'")


def drop_schema(connection: Connection) -> None:
    """Remove the schema with every job in it; the deliberations themselves are elsewhere."""
    connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


def _migrations() -> list[Path]:
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"), key=lambda path: path.name)


@contextmanager
def _within(connection: Connection) -> Iterator[None]:
    """Names without a schema are those of procrastinate until the end, and afterwards what they were."""
    before = connection.execute(text("SELECT current_setting('search_path')")).scalar()
    switch = text("SELECT set_config('search_path', :path, true)")
    connection.execute(switch, {"path": SCHEMA})
    yield
    connection.execute(switch, {"path": before})
