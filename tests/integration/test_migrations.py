"""Migrations and the tables in code build the same database, on SQLite and on Postgres."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, bindparam, text

from domain.errors.configuration import ConfigurationError
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import current_revision, downgrade, is_current, latest_revision, upgrade
from infrastructure.persistence.tables import Moment, calls, halt_state, metadata

_CATALOGUE = {
    "sqlite": "SELECT type, name, sql FROM sqlite_master WHERE tbl_name != 'alembic_version' ORDER BY type, name",
    "postgresql": """
        SELECT table_name, column_name, data_type || coalesce(character_maximum_length::text, '') || is_nullable
        FROM information_schema.columns WHERE table_schema = 'public' AND table_name != 'alembic_version'
        UNION ALL SELECT attrelid::regclass::text, attname, attstorage::text FROM pg_attribute
        JOIN pg_class ON pg_class.oid = attrelid WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
        AND attnum > 0 AND relname != 'alembic_version'
        UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename != 'alembic_version'
        UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text != 'alembic_version'
        UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger
        WHERE NOT tgisinternal AND tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
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


def _migrate(url: str) -> None:
    """From revision to revision, also where there is nothing yet."""
    upgrade(url, latest_revision())


def _catalogue(connection: Connection) -> list[tuple[str, ...]]:
    return [tuple(row) for row in connection.exec_driver_sql(_CATALOGUE[connection.dialect.name])]


def _rows(connection: Connection) -> dict[str, list[tuple[object, ...]]]:
    return {name: [tuple(row) for row in connection.execute(each.select())] for name, each in metadata.tables.items()}


def test_alembic_finds_nothing_to_add_to_what_the_migrations_build(url: str, engine: Engine) -> None:
    _migrate(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_and_metadata_build_the_same_database(url: str, engine: Engine) -> None:
    _migrate(url)
    with engine.begin() as connection:
        migrated, rows = _catalogue(connection), _rows(connection)
    downgrade(url, "base")
    with engine.begin() as connection:
        assert _catalogue(connection) == []
        metadata.create_all(connection)
    with engine.begin() as connection:
        assert _catalogue(connection) == migrated
        assert _rows(connection) == rows
    assert len(migrated) > len(metadata.tables)


def test_a_new_file_is_built_as_alembic_would_have_it_and_without_alembic(tmp_path: Path) -> None:
    program = (
        "import sys; from infrastructure.persistence.migrate import upgrade; upgrade(sys.argv[1]); "
        "sys.exit('alembic' in sys.modules)"
    )
    built, migrated = f"sqlite:///{tmp_path}/built.db", f"sqlite:///{tmp_path}/migrated.db"
    subprocess.run([sys.executable, "-c", program, built], check=True, timeout=60)
    _migrate(migrated)
    found = []
    for url in (built, migrated):
        engine = open_sync_engine(url)
        with engine.connect() as connection:
            everything = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master").all()
            version = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
            found.append(({tuple(row) for row in everything}, version, _rows(connection)))
        engine.dispose()
    assert found[0] == found[1]
    downgrade(built, "base")
    assert current_revision(built) is None


def test_going_down_and_up_again_gives_the_same_database(url: str, engine: Engine) -> None:
    _migrate(url)
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


def test_a_database_of_a_newer_conclave_is_refused_and_left_as_it_is(url: str, engine: Engine) -> None:
    upgrade(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        before = _catalogue(connection)
    told = f"newer Conclave: revision 9999, this one knows up to {latest_revision()}"
    for act in (
        upgrade,
        is_current,
        current_revision,
        lambda url: upgrade(url, "0003"),
        lambda url: downgrade(url, "base"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            act(url)
    with engine.connect() as connection:
        assert _catalogue(connection) == before


def test_a_revision_that_no_conclave_makes_is_that_of_another_program(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('1975ea83b712')")
    with pytest.raises(ConfigurationError, match="made by another program: its revision is '1975ea83b712'"):
        upgrade(url)


@pytest.mark.parametrize(
    "made", ["TABLE deliberations (id INTEGER)", "VIEW deliberations AS SELECT 1 AS id"], ids=["table", "view"]
)
def test_what_another_program_has_under_a_name_of_ours_is_a_setting_to_mend(
    url: str, engine: Engine, made: str
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE {made}")
    with pytest.raises(ConfigurationError, match=r"CONCLAVE_DATABASE_URL: .* another program .*deliberations"):
        upgrade(url)
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


def _call(agent_id: str, attempt: int, prompt: str | None) -> str:
    told = {
        "agent_id": agent_id,
        "at": "2026-11-20T12:00:00.000000Z",
        "attempt": attempt,
        "model": None,
        "prompt": None if prompt is None else {"sha256": prompt},
        "purpose": "answer",
        "round": 0,
        "type": "call.intended",
    }
    return json.dumps(told, separators=(",", ":"))


def _at_revision_0002(connection: Connection) -> None:
    """One at work, one queued and one that ended, as the version before wrote them."""
    insert = text(
        "INSERT INTO deliberations (id, position, status, created_at, orchestrator, simulated, cancel_requested, lease_owner) "
        "VALUES (:id, :position, :status, :at, 'simulated', true, false, :owner)"
    ).bindparams(bindparam("at", type_=Moment()))
    at = datetime(2026, 11, 20, 12, tzinfo=UTC)
    for position, status in enumerate(("running", "completed", "queued"), start=1):
        values = {"id": status, "position": position, "status": status, "at": at, "owner": "host:1:abc"}
        connection.execute(insert, values)
    entries = [
        ("running", '{"type":"deliberation.accepted"}'),
        ("running", _call("archon-1", 1, "a1" * 32)),
        ("completed", _call("archon-1", 1, "b2" * 32)),
        ("running", _call("archon-2", 1, None)),
        (None, '{"type":"system.started"}'),
        ("running", '{"type":"agent.ended"}'),
        ("running", _call("archon-1", 2, "a1" * 32)),
        ("queued", '{"type":"deliberation.accepted"}'),
    ]
    enter = text(
        "INSERT INTO witness_entries (idx, leaf_hash, deliberation_id, entry) VALUES (:at, :hash, :own, :entry)"
    )
    for index, (own, entry) in enumerate(entries):
        connection.execute(enter, {"at": index, "hash": b"h" * 32, "own": own, "entry": entry.encode()})


def test_the_ledger_is_filled_from_the_entries_that_there_are(url: str, engine: Engine) -> None:
    upgrade(url, "0002")
    with engine.begin() as connection:
        _at_revision_0002(connection)
    upgrade(url)
    with engine.connect() as connection:
        found = connection.execute(calls.select().order_by(calls.c.leaf_index)).all()
    assert [tuple(row) for row in found] == [
        ("running", 0, "archon-1", "answer", 1, "a1" * 32, 1, None, "2026-11-20", 0, 0),
        ("completed", 0, "archon-1", "answer", 1, "b2" * 32, 2, None, "2026-11-20", 0, 0),
        ("running", 0, "archon-2", "answer", 1, None, 3, None, "2026-11-20", 0, 0),
        ("running", 0, "archon-1", "answer", 2, "a1" * 32, 6, None, "2026-11-20", 0, 0),
    ]
    # What was filled in is guarded as what is added later.
    with engine.connect() as connection, pytest.raises(Exception, match="calls only grows"):
        connection.execute(calls.delete())


def test_going_back_before_the_ledger_and_on_again_fills_it_again(url: str, engine: Engine) -> None:
    upgrade(url, "0002")
    with engine.begin() as connection:
        _at_revision_0002(connection)
    upgrade(url)
    downgrade(url, "0002")
    upgrade(url)
    with engine.connect() as connection:
        assert len(connection.execute(calls.select()).all()) == 4
        assert tuple(connection.execute(halt_state.select()).one()) == (1, False, None, None)
