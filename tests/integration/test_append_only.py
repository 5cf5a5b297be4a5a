"""What is recorded stays as it was, whatever statement the application's role tries, on SQLite and on Postgres."""

import re
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from infrastructure.persistence import tables
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import upgrade
from tests.integration.forbidden_statements import application_statements, owner_statements, sqlite_statements
from tests.integration.recorded_databases import Ground, opened_ground, text_of, write_record
from tests.servers.postgres import PostgresServer

_INSUFFICIENT_PRIVILEGE = "42501"


@pytest.fixture
def sqlite_file(recorded_sqlite_file: Path, tmp_path: Path) -> Path:
    """A SQLite file with the record, of this test's own."""
    return Path(shutil.copy(recorded_sqlite_file, tmp_path / "conclave.db"))


@pytest.fixture(scope="module")
def recorded(postgres_server: PostgresServer) -> Iterator[Ground]:
    """A database in which the application's role has written the record. Tests do not change it: that is what they are about."""
    with opened_ground(postgres_server) as opened:
        upgrade(text_of(opened.owner), application_url=text_of(opened.application))
        engine = open_sync_engine(opened.application)
        with engine.begin() as connection:
            write_record(connection)
        engine.dispose()
        yield opened


def _rows_of_sqlite(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        for table in tables.metadata.sorted_tables:
            found += database.execute(f"SELECT * FROM {table.name} ORDER BY 1, 2").fetchall()  # noqa: S608 - our own tables
        return found


@pytest.fixture(scope="module")
def watcher(recorded: Ground) -> Iterator[psycopg.Connection[Any]]:
    """A session of the administrator on it, for all tests, because most of their time would be connecting."""
    with recorded.connect("admin") as connection:
        yield connection


def _rows_of_postgres(watcher: psycopg.Connection[Any]) -> list[Any]:
    """Every row, and who owns, guards and may change the tables."""
    found: list[Any] = watcher.execute(
        "SELECT c.relname::text, c.relowner, c.relacl::text, t.tgname::text, t.tgenabled::text, p.prosrc "
        "FROM pg_class c LEFT JOIN pg_trigger t ON t.tgrelid = c.oid LEFT JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, 4"
    ).fetchall()
    for table in tables.metadata.sorted_tables:
        statement = sql.SQL("SELECT * FROM {} ORDER BY 1, 2").format(sql.Identifier(table.name))
        found += watcher.execute(statement).fetchall()
    return found


def _short(statement: str) -> str:
    return re.sub(r"\W+", " ", statement)[:70].strip()


def _each(statements: Iterator[str]) -> Sequence[Any]:
    return [pytest.param(statement, id=f"{number}-{_short(statement)}") for number, statement in enumerate(statements)]


@pytest.mark.parametrize("statement", _each(sqlite_statements()))
def test_sqlite_refuses_a_statement_that_would_change_the_record(sqlite_file: Path, statement: str) -> None:
    before = _rows_of_sqlite(sqlite_file)
    *others, last = statement.split("; ")
    # As a stranger opens it: without our settings, so neither deletions by REPLACE fire triggers nor do foreign keys hold.
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as database:
        for other in others:
            database.execute(other)
        with pytest.raises(sqlite3.IntegrityError, match="conclave: "):
            database.execute(last).fetchall()
    assert _rows_of_sqlite(sqlite_file) == before


@pytest.mark.parametrize("statement", _each(application_statements()))
def test_postgres_refuses_the_application_role_a_statement_that_would_change_the_record(
    recorded: Ground, watcher: psycopg.Connection[Any], statement: str
) -> None:
    before = _rows_of_postgres(watcher)
    statement = statement.replace("{owner}", str(recorded.owner.username))
    with recorded.connect("application") as connection:
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(statement.encode())
        assert refused.value.sqlstate == _INSUFFICIENT_PRIVILEGE
    assert _rows_of_postgres(watcher) == before


@pytest.mark.parametrize("who", ["owner", "admin"])
@pytest.mark.parametrize("statement", _each(owner_statements()))
def test_triggers_refuse_the_owner_and_a_superuser_that_replicates_and_warn(
    recorded: Ground, watcher: psycopg.Connection[Any], statement: str, who: str
) -> None:
    before = _rows_of_postgres(watcher)
    warnings: list[str | None] = []
    with recorded.connect(who) as connection:
        if who == "admin":
            connection.execute("SET session_replication_role = replica")
        connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"only grows|what an entry says"):
            connection.execute(statement.encode())
    assert any("was refused for" in (warning or "") for warning in warnings)
    assert _rows_of_postgres(watcher) == before


def test_copying_an_entry_over_one_that_is_there_is_refused(recorded: Ground, watcher: psycopg.Connection[Any]) -> None:
    before = _rows_of_postgres(watcher)
    with (
        recorded.connect("application") as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
        connection.cursor() as cursor,
        cursor.copy("COPY witness_entries (idx, leaf_hash, entry) FROM STDIN") as copy,
    ):
        copy.write_row((0, b"", b""))
    assert _rows_of_postgres(watcher) == before
