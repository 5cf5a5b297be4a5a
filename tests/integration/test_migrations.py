"""Migrations and the tables in code build the same database, on SQLite and on Postgres."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from domain.errors.configuration import ConfigurationError
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import current_revision, downgrade, is_current, latest_revision, upgrade
from infrastructure.persistence.tables import metadata

_CATALOGUE = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE tbl_name != 'alembic_version' ORDER BY type, name",
    "postgresql": """
        SELECT table_name, column_name, data_type || coalesce(character_maximum_length::text, '') || is_nullable
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'
        UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename != 'alembic_version'
        UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text != 'alembic_version'
        UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger
        WHERE NOT tgisinternal
        UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
        ORDER BY 1, 2, 3
    """,
}


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/conclave.db"
    address: str = request.getfixturevalue("postgres_url")
    return address


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An engine on it."""
    opened = open_sync_engine(url)
    yield opened
    opened.dispose()


def _catalogue(connection: Connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(_CATALOGUE[connection.dialect.name])]


def test_alembic_finds_nothing_to_add_to_what_the_migrations_build(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_and_metadata_build_the_same_database(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        migrated = _catalogue(connection)
    downgrade(url, "base")
    with engine.begin() as connection:
        assert _catalogue(connection) == []
        metadata.create_all(connection)
    with engine.begin() as connection:
        assert _catalogue(connection) == migrated
    assert len(migrated) > len(metadata.tables)


def test_going_down_and_up_again_gives_the_same_database(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        before = _catalogue(connection)
    downgrade(url, "base")
    assert current_revision(url) is None
    upgrade(url)
    with engine.begin() as connection:
        assert _catalogue(connection) == before


def test_an_upgraded_database_says_so_and_upgrading_it_again_changes_nothing(url: str) -> None:
    assert not is_current(url)
    upgrade(url)
    assert is_current(url)
    upgrade(url)
    assert current_revision(url) == latest_revision()


def test_an_upgrade_that_fails_halfway_leaves_nothing_behind(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE agent_records (in_the_way TEXT)")
    with pytest.raises(Exception, match="agent_records"):
        upgrade(url)
    with engine.connect() as connection:
        assert {row[0] for row in _catalogue(connection) if row[0] != "table"} <= {"agent_records"}
        assert not connection.dialect.has_table(connection, "deliberations")
    assert current_revision(url) is None


def test_of_three_processes_that_upgrade_at_once_each_finds_it_done(url: str) -> None:
    program = "import sys; from infrastructure.persistence.migrate import upgrade; upgrade(sys.argv[1])"
    started = [
        subprocess.Popen([sys.executable, "-c", program, url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ended == [("", 0)] * 3
    assert is_current(url)


def test_alembic_itself_upgrades_the_database_of_the_environment(url: str, repository_root: Path) -> None:
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    environment = {**os.environ, "CONCLAVE_DATABASE_URL": url}
    ended = subprocess.run(command, cwd=repository_root, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert is_current(url)


def test_alembic_without_a_database_says_which_variable_it_lacks(repository_root: Path) -> None:
    command = [sys.executable, "-m", "alembic", "upgrade", "head"]
    ended = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "CONCLAVE_DATABASE_URL" in ended.stderr


def test_the_latest_revision_is_the_head_that_alembic_sees(repository_root: Path) -> None:
    config = Config(repository_root / "alembic.ini")
    assert ScriptDirectory.from_config(config).get_heads() == [latest_revision()]


def test_a_url_that_cannot_be_used_stops_before_anything_is_done() -> None:
    with pytest.raises(ConfigurationError, match="CONCLAVE_DATABASE_URL"):
        upgrade("mysql://root@localhost/conclave")
