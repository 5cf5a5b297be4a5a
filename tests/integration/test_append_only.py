"""What is recorded stays as it was, whatever statement the application's role tries, on SQLite and on Postgres."""
# ruff: noqa: S608 - statements put together from strings are what is tested

import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, Connection, event, make_url

from api.bootstrap import examine, upgrade_database
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence import tables
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import current_revision, is_current, upgrade
from infrastructure.persistence.privileges import RIGHTS, grant, rights_beyond_appending, runs_as_owner
from infrastructure.settings import load_settings
from tests.servers.postgres import PostgresServer

_KEPT, _ERASED = "0197-kept", "0197-erased"
_MOMENT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
_KEYS = {
    "witness_entries": "idx",
    "witness_nodes": "tile_level, place",
    "witness_checkpoints": "tree_size",
    "erasures": "deliberation_id",
    "agent_records": "deliberation_id, round_number, agent_id",
    "disclosures": "sha256",
    "calls": "deliberation_id, round_number, agent_id, purpose, attempt",
    "charges": "deliberation_id, round_number, agent_id, purpose, attempt",
    "witness_head": "id",
}
# A column of each table that somebody who forges the record would change.
_FORGED = {
    "witness_entries": "entry = ''",
    "witness_nodes": "hash = ''",
    "witness_checkpoints": "note = 'forged'",
    "erasures": "idx = 7",
    "agent_records": "content = 'forged'",
    "disclosures": "text = 'forged'",
    "calls": "prompt_sha256 = 'forged'",
    "charges": "cost = 0",
    "witness_head": "tree_size = 1",
}
_INSUFFICIENT_PRIVILEGE = "42501"


@dataclass(frozen=True, slots=True)
class Ground:
    """One Postgres database, its owner and the application's role, which is another."""

    admin: URL
    owner: URL
    application: URL

    def connect(self, who: str) -> psycopg.Connection[Any]:
        """A session of `admin`, `owner` or `application` in which each statement stands for itself."""
        url: URL = getattr(self, who)
        parts = url.translate_connect_args(username="user", database="dbname")
        return psycopg.connect(psycopg.conninfo.make_conninfo(**parts), autocommit=True)


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


_CHARGE = {
    "round_number": 1,
    "agent_id": "archon-1",
    "purpose": "answer",
    "input_tokens": 3,
    "output_tokens": 2,
    "cost": 9,
    "is_certain": True,
}


def _record(*, ordinal: int, deliberation_id: str, agent_id: str) -> dict[str, Any]:
    return {
        "deliberation_id": deliberation_id,
        "round_number": 1,
        "agent_id": agent_id,
        "ordinal": ordinal,
        "state": "completed",
        "attempts": 1,
        "finished_at": _MOMENT,
        "content": "what it said",
        "answer": "0",
        "reasoning": "why",
        "calls": 1,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": 0.0,
        "uncertain_tokens": 0,
        "uncertain_usd": 0.0,
        "fell_back": False,
        "truncated": False,
        "duration_seconds": 0.5,
        "leaf_index": ordinal,
        "salts": b"s" * 64,
    }


def _write_record(connection: Connection) -> None:
    """Two deliberations of two agents, recorded; the second may be erased and is not yet."""
    for position, name in enumerate((_KEPT, _ERASED)):
        deliberation = {
            "id": name,
            "position": position,
            "status": "completed",
            "created_at": _MOMENT,
            "orchestrator": "simulated",
            "simulated": True,
            "cancel_requested": False,
        }
        connection.execute(tables.deliberations.insert(), deliberation)
        specification = {"deliberation_id": name, "specification": "{}", "roster": "{}", "salts": b"s" * 16}
        connection.execute(tables.specifications.insert(), specification)
        for ordinal, agent in enumerate(("archon-1", "archon-2"), start=1):
            connection.execute(
                tables.agent_records.insert(), _record(ordinal=ordinal, deliberation_id=name, agent_id=agent)
            )
        call = {
            "deliberation_id": name,
            "round_number": 1,
            "agent_id": "archon-1",
            "purpose": "answer",
            "leaf_index": 0,
        }
        for attempt in (1, 2):
            foreseen = {"day": "2026-11-20", "held_tokens": 9, "held_cost": 9}
            intended = {**call, **foreseen, "attempt": attempt, "prompt_sha256": "p" * 64}
            connection.execute(tables.calls.insert(), intended)
            connection.execute(tables.charges.insert(), {**_CHARGE, "deliberation_id": name, "attempt": attempt})
    for index, (name, entry) in enumerate(((_KEPT, b"{}"), (_ERASED, b"{}"), (_ERASED, b'{"type":"erased"}'))):
        values = {"idx": index, "leaf_hash": b"h" * 32, "deliberation_id": name, "sequence": index, "entry": entry}
        connection.execute(tables.witness_entries.insert(), values)
    for digit, owner in (("0", None), ("1", _KEPT), ("2", _ERASED)):
        disclosure = {"sha256": digit * 64, "deliberation_id": owner, "salt": b"s" * 16, "text": "why"}
        connection.execute(tables.disclosures.insert(), disclosure)
    for place in (0, 1):
        connection.execute(tables.witness_nodes.insert(), {"tile_level": 1, "place": place, "hash": b"n" * 32})
    connection.execute(
        tables.witness_checkpoints.insert(), [{"tree_size": 1, "note": "1"}, {"tree_size": 3, "note": "3"}]
    )
    connection.execute(tables.erasures.insert(), {"deliberation_id": _ERASED, "idx": 2})
    connection.execute(tables.witness_head.update().values(tree_size=3, frontier=b"f" * 64))


@pytest.fixture(scope="module")
def recorded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the record, never changed: `sqlite_file` is a copy."""
    path = tmp_path_factory.mktemp("append-only") / "recorded.db"
    upgrade(f"sqlite:///{path}")
    engine = open_sync_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        _write_record(connection)
    engine.dispose()
    return path


@pytest.fixture
def sqlite_file(recorded_file: Path, tmp_path: Path) -> Path:
    """A SQLite file with the record, of this test's own."""
    return Path(shutil.copy(recorded_file, tmp_path / "conclave.db"))


def _open_ground(server: PostgresServer) -> Ground:
    if not server.running:
        server.start()
    mark = secrets.token_hex(6)
    admin = make_url(server.url(f"append_only_{mark}"))
    owner = admin.set(username=f"owner_{mark}", password=secrets.token_hex(12))
    # Whatever a name holds, it is a name.
    application = admin.set(username=f'app "{mark}" 100%', password="p@ss'word % \\ ü")
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        name = sql.Identifier(str(owner.username))
        secret = sql.Literal(owner.password)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(name, secret))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(str(owner.database)), name))
    return Ground(admin=admin, owner=owner, application=application)


def _close_ground(server: PostgresServer, ground: Ground) -> None:
    if not server.running:
        server.start()
    server.drop_database(str(ground.owner.database))
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        for url in (ground.application, ground.owner):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(str(url.username))))


@pytest.fixture
def ground(postgres_server: PostgresServer) -> Iterator[Ground]:
    """A database without tables, whose owner is no superuser but may make roles; the application's role is still to be made."""
    opened = _open_ground(postgres_server)
    yield opened
    _close_ground(postgres_server, opened)


@pytest.fixture(scope="module")
def recorded(postgres_server: PostgresServer) -> Iterator[Ground]:
    """A database in which the application's role has written the record. Tests do not change it: that is what they are about."""
    opened = _open_ground(postgres_server)
    upgrade(_text(opened.owner), application_url=_text(opened.application))
    engine = open_sync_engine(opened.application)
    with engine.begin() as connection:
        _write_record(connection)
    engine.dispose()
    yield opened
    _close_ground(postgres_server, opened)


def _rows_of_sqlite(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        found = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        for table in tables.metadata.sorted_tables:
            found += database.execute(f"SELECT * FROM {table.name} ORDER BY 1, 2").fetchall()
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


# Every column of a row that is there, with a changed one.
_AGAIN = {
    "witness_entries": "(0, ''::bytea, NULL, 1, ''::bytea)",
    "witness_nodes": "(1, 0, ''::bytea)",
    "witness_checkpoints": "(1, 'forged')",
    "erasures": f"('{_ERASED}', 7)",
    "agent_records": f"('{_KEPT}', 1, 'archon-1', 1, 'completed', 1, NULL, '2026-11-20', 'forged', '1', NULL, NULL, NULL, "
    "NULL, NULL, NULL, 1, 10, 5, 0.0, false, 0.5, 1, NULL, 0, 0.0, false)",
    "disclosures": f"('{'0' * 64}', NULL, ''::bytea, 'forged')",
    "calls": f"('{_KEPT}', 1, 'archon-1', 'answer', 1, 'forged', 1, NULL, '2026-11-20', 0, 0)",
    "charges": f"('{_KEPT}', 1, 'archon-1', 'answer', 1, 'forged', 0, 0, 0, true)",
    "witness_head": "(1, 9, ''::bytea)",
}


def _sqlite_statements() -> Iterator[str]:
    for table, key in _KEYS.items():
        again = _AGAIN[table].replace("''::bytea", "x'00'")
        yield f"UPDATE {table} SET {_FORGED[table]}"
        for resolution in ("IGNORE", "REPLACE", "FAIL", "ROLLBACK", "ABORT"):
            yield f"UPDATE OR {resolution} {table} SET {_FORGED[table]}"
            yield f"INSERT OR {resolution} INTO {table} VALUES {again}"
        yield f"REPLACE INTO {table} VALUES {again}"
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT DO UPDATE SET {_FORGED[table]}"
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"DELETE FROM {table} WHERE true RETURNING *"
    for name in ("idx", "rowid", "_rowid_", "oid"):
        for value in ("0", "'0'", "0.0"):
            yield f"REPLACE INTO witness_entries ({name}, leaf_hash, entry) VALUES ({value}, x'', x'')"
    yield "UPDATE OR REPLACE witness_entries SET idx = 1 WHERE idx = 0"
    yield "UPDATE OR REPLACE witness_entries SET rowid = 1 WHERE idx = 0"
    yield "REPLACE INTO witness_nodes VALUES ('1', 0.0, x'')"
    yield "REPLACE INTO witness_checkpoints VALUES ('1', 'forged')"
    yield "REPLACE INTO erasures (rowid, deliberation_id, idx) VALUES (1, 'another', 7)"
    columns = "deliberation_id, round_number, agent_id, ordinal, state, attempts, finished_at, calls, input_tokens, "
    columns += (
        "output_tokens, cost_usd, truncated, duration_seconds, leaf_index, uncertain_tokens, uncertain_usd, fell_back"
    )
    yield f"REPLACE INTO agent_records (rowid, {columns}) VALUES (1, 'x', 1, 'x', 1, 'x', 1, 'x', 1, 1, 1, 0, 0, 0, 1, 0, 0, 0)"
    yield f"REPLACE INTO agent_records (rowid, {columns}) VALUES ('1', 'x', 1, 'x', 1, 'x', 1, 'x', 1, 1, 1, 0, 0, 0, 1, 0, 0, 0)"
    nothing = "content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"
    erased = f"WHERE deliberation_id = '{_ERASED}'"
    yield f"UPDATE agent_records SET {nothing}"
    yield f"UPDATE OR REPLACE agent_records SET rowid = 1, {nothing} {erased}"
    yield f"UPDATE agent_records SET answer = '1', {nothing} {erased}"
    yield f"UPDATE agent_records SET state = 'failed', {nothing} {erased}"
    yield f"UPDATE agent_records SET reasoning = NULL, salts = NULL {erased}"
    yield f"UPDATE agent_records SET content = 'forged' {erased}"
    yield f"UPDATE agent_records SET deliberation_id = '{_ERASED}', agent_id = 'x', {nothing}"
    yield f"CREATE TEMP TABLE erasures AS SELECT '{_KEPT}' AS deliberation_id; UPDATE agent_records SET {nothing}"
    yield "DELETE FROM disclosures WHERE deliberation_id IS NULL"
    yield f"DELETE FROM disclosures WHERE deliberation_id = '{_KEPT}'"
    yield f"UPDATE disclosures SET deliberation_id = '{_ERASED}'"
    yield "REPLACE INTO disclosures (rowid, sha256, salt, text) VALUES (1, 'x', x'', 'x')"
    yield "UPDATE OR REPLACE calls SET attempt = 2 WHERE attempt = 1"
    yield f"UPDATE calls SET deliberation_id = '{_ERASED}', attempt = 9"
    yield f"REPLACE INTO calls VALUES ('{_KEPT}', '1', 'archon-1', 'answer', 1.0, NULL, 1, NULL, '', 0, 0)"
    yield "UPDATE OR REPLACE charges SET attempt = 2 WHERE attempt = 1"
    yield f"REPLACE INTO charges VALUES ('{_KEPT}', '1', 'archon-1', 'answer', 1.0, NULL, 0, 0, 0, 0)"
    yield f"DELETE FROM charges WHERE deliberation_id = '{_ERASED}'"
    yield f"DELETE FROM calls WHERE deliberation_id = '{_ERASED}'"
    yield "UPDATE witness_head SET frontier = x''"
    yield "UPDATE witness_head SET tree_size = 2"
    yield "UPDATE witness_head SET tree_size = 'many'"
    yield "UPDATE witness_head SET tree_size = x'ff'"
    yield "UPDATE witness_head SET tree_size = 1e300"
    yield "UPDATE witness_head SET id = 2, tree_size = 9"
    yield "INSERT INTO witness_head VALUES (2, 0, x'')"
    yield "REPLACE INTO witness_head VALUES (2, 0, x'')"
    yield "INSERT INTO witness_head (tree_size, frontier) VALUES (0, x'')"


def _application_statements() -> Iterator[str]:
    for table, key in _KEYS.items():
        yield f"UPDATE {table} SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"WITH gone AS (DELETE FROM {table} RETURNING *) SELECT * FROM gone"
        yield f"DO $$ BEGIN DELETE FROM {table}; END $$"
        yield f"TRUNCATE {table}"
        yield f"TRUNCATE {table} CASCADE"
        yield f"INSERT INTO {table} VALUES {_AGAIN[table]} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN UPDATE SET {_FORGED[table]}"
        yield f"ALTER TABLE {table} DISABLE TRIGGER ALL"
        yield f"ALTER TABLE {table} DISABLE TRIGGER {table}_only_grows"
        yield f"ALTER TABLE {table} ENABLE REPLICA TRIGGER {table}_only_grows"
        yield f"DROP TRIGGER {table}_only_grows ON {table}"
        yield f"CREATE TRIGGER skip BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        yield f"DROP TABLE {table} CASCADE"
        yield f"ALTER TABLE {table} OWNER TO CURRENT_USER"
        yield f"ALTER TABLE {table} RENAME TO gone"
        yield f"ALTER TABLE {table} SET SCHEMA pg_temp"
        yield f"ALTER TABLE {table} DROP CONSTRAINT pk_{table} CASCADE"
        yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"
        yield f"CREATE RULE quiet AS ON INSERT TO {table} DO INSTEAD NOTHING"
        yield f"CREATE TEMP TABLE child () INHERITS ({table})"
        yield f"GRANT ALL ON {table} TO CURRENT_USER; DELETE FROM {table}"
    for table in ("witness_entries", "witness_nodes", "witness_checkpoints", "erasures", "calls", "charges"):
        yield f"SELECT * FROM {table} FOR UPDATE"
        yield f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
        yield f"SET session_replication_role = replica; UPDATE {table} SET {_FORGED[table]}"
    yield "SET session_replication_role = replica"
    yield "SELECT set_config('session_replication_role', 'replica', false)"
    yield "ALTER ROLE CURRENT_USER SET session_replication_role = replica"
    yield "ALTER ROLE CURRENT_USER SUPERUSER"
    yield "ALTER SYSTEM SET session_replication_role = replica"
    yield "SET ROLE {owner}"
    yield "SET SESSION AUTHORIZATION {owner}"
    yield "GRANT {owner} TO CURRENT_USER"
    yield "GRANT pg_write_all_data TO CURRENT_USER"
    yield "DROP OWNED BY {owner}"
    yield "REASSIGN OWNED BY {owner} TO CURRENT_USER"
    yield "CREATE OR REPLACE FUNCTION conclave_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$"
    yield "DROP FUNCTION conclave_refuse() CASCADE"
    yield "ALTER FUNCTION conclave_erased_only() SET search_path = pg_temp"
    yield "DROP SCHEMA public CASCADE"
    yield "CREATE TABLE beside (id integer)"
    yield "CREATE SCHEMA beside"
    yield "UPDATE pg_trigger SET tgenabled = 'D'"
    yield "UPDATE pg_class SET relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)"
    yield "COPY witness_entries FROM PROGRAM 'true'"
    yield "COPY (SELECT * FROM witness_entries) TO '/nowhere'"
    yield "INSERT INTO witness_head VALUES (2, 0, '')"
    yield "UPDATE witness_head SET frontier = ''"
    yield "UPDATE witness_head SET tree_size = tree_size - 1"
    yield "UPDATE witness_head SET id = 2"
    nothing = "content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"
    erased = f"WHERE deliberation_id = '{_ERASED}'"
    yield f"UPDATE agent_records SET {nothing}"
    yield f"UPDATE agent_records SET answer = '1', {nothing} {erased}"
    yield f"UPDATE agent_records SET state = 'failed', {nothing} {erased}"
    yield f"UPDATE agent_records SET reasoning = NULL, salts = NULL {erased}"
    yield f"UPDATE agent_records SET content = 'forged' {erased}"
    yield "DELETE FROM disclosures WHERE deliberation_id IS NULL"
    yield f"DELETE FROM disclosures WHERE deliberation_id = '{_KEPT}'"
    yield f"UPDATE disclosures SET deliberation_id = '{_ERASED}'"
    for index in (0, 1, 2, 7):
        yield f"INSERT INTO erasures VALUES ('{_KEPT}', {index})"
    shadow = f"CREATE TEMP TABLE erasures AS SELECT '{_KEPT}' AS deliberation_id"
    yield f"{shadow}; UPDATE agent_records SET {nothing}"
    yield f"{shadow}; SET search_path = pg_temp, public; UPDATE agent_records SET {nothing}"
    yield "TRUNCATE deliberations CASCADE"
    yield "DELETE FROM deliberations"
    yield "DELETE FROM specifications"
    # The halt's one row can be set and cleared, and nothing else; a key that was used is not bent to another deliberation.
    yield "DELETE FROM halt_state"
    yield "TRUNCATE halt_state"
    yield "UPDATE halt_state SET id = 2"
    yield "INSERT INTO halt_state VALUES (2, false)"
    yield "DROP TABLE halt_state"
    yield "TRUNCATE idempotency_keys"
    yield f"UPDATE idempotency_keys SET deliberation_id = '{_ERASED}'"
    yield "DROP TABLE idempotency_keys"
    yield "UPDATE alembic_version SET version_num = '0001'"


def _owner_statements() -> Iterator[str]:
    """What the triggers alone refuse, to whoever leaves them in force."""
    for table, key in _KEYS.items():
        yield f"UPDATE {table} SET {_FORGED[table]}"
        yield f"DELETE FROM {table}"
        yield f"TRUNCATE {table}"
        yield f"TRUNCATE {table} CASCADE"
        yield f"MERGE INTO {table} USING (SELECT 1) AS one ON true WHEN MATCHED THEN DELETE"
        again = _AGAIN[table].replace("(1, 9,", "(1, 1,")
        yield f"INSERT INTO {table} VALUES {again} ON CONFLICT ({key}) DO UPDATE SET {_FORGED[table]}"
    yield "TRUNCATE deliberations CASCADE"
    yield "UPDATE agent_records SET content = NULL, reasoning = NULL, failure_message = NULL, salts = NULL"


def _short(statement: str) -> str:
    return re.sub(r"\W+", " ", statement)[:70].strip()


def _each(statements: Iterator[str]) -> Sequence[Any]:
    return [pytest.param(statement, id=f"{number}-{_short(statement)}") for number, statement in enumerate(statements)]


@pytest.mark.parametrize("statement", _each(_sqlite_statements()))
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


@pytest.mark.parametrize("statement", _each(_application_statements()))
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
@pytest.mark.parametrize("statement", _each(_owner_statements()))
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


@pytest.fixture(params=["sqlite", "postgres"])
def application_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind with the record, as the application sees it, of this test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('sqlite_file')}"
    opened: Ground = request.getfixturevalue("ground")
    upgrade(_text(opened.owner), application_url=_text(opened.application))
    engine = open_sync_engine(opened.application)
    with engine.begin() as connection:
        _write_record(connection)
    return _text(opened.application)


def test_texts_can_be_erased_once_their_erasure_stands_there(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    records = tables.agent_records
    nothing = {"content": None, "reasoning": None, "failure_message": None, "answer": None, "salts": None}
    erase = records.update().where(records.c.deliberation_id == _KEPT).values(**nothing)
    with engine.connect() as connection, pytest.raises(Exception, match="agent_records only grows"):
        connection.execute(erase)
    with engine.begin() as connection:
        entry = {"idx": 3, "leaf_hash": b"h" * 32, "deliberation_id": _KEPT, "entry": b'{"type":"erased"}'}
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.erasures.insert(), {"deliberation_id": _KEPT, "idx": 3})
        gone = connection.execute(tables.disclosures.delete().where(tables.disclosures.c.deliberation_id == _KEPT))
        assert gone.rowcount == 1
        assert connection.execute(erase).rowcount == 2
    with engine.connect() as connection:
        found = connection.execute(records.select().where(records.c.deliberation_id == _KEPT)).mappings().all()
    assert [{name: row[name] for name in nothing} for row in found] == [nothing, nothing]
    assert [row["leaf_index"] for row in found] == [1, 2]


@pytest.mark.parametrize("index", [0, 1, 2, 7])
def test_an_erasure_needs_the_entry_that_says_so(application_url: str, index: int) -> None:
    with (
        open_sync_engine(application_url).connect() as connection,
        pytest.raises(Exception, match="what an entry says"),
    ):
        connection.execute(tables.erasures.insert(), {"deliberation_id": _KEPT, "idx": index})


def test_the_texts_of_the_erasure_itself_stay(application_url: str) -> None:
    told, reason, question = "0197-told", "4" * 64, "5" * 64
    deliberation = {
        "id": told,
        "position": 9,
        "status": "completed",
        "created_at": _MOMENT,
        "orchestrator": "simulated",
        "simulated": True,
        "cancel_requested": False,
    }
    data = f'{{"reason":{{"sha256":"{reason}"}},"type":"erased"}}'.encode()
    entry = {"idx": 90, "leaf_hash": b"h" * 32, "deliberation_id": told, "entry": data}
    texts = tables.disclosures
    # Never committed, so that the other tests find what they expect.
    with open_sync_engine(application_url).connect() as connection:
        connection.execute(tables.deliberations.insert(), deliberation)
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.erasures.insert(), {"deliberation_id": told, "idx": 90})
        for sha256 in (reason, question):
            values = {"sha256": sha256, "deliberation_id": told, "salt": b"s" * 16, "text": "why"}
            connection.execute(texts.insert(), values)
        assert connection.execute(texts.delete().where(texts.c.sha256 == question)).rowcount == 1
        with pytest.raises(Exception, match="disclosures only grows"):
            connection.execute(texts.delete().where(texts.c.sha256 == reason))


def test_an_erased_text_does_not_come_back(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    records = tables.agent_records
    erased = records.update().where(records.c.deliberation_id == _ERASED)
    with engine.begin() as connection:
        connection.execute(erased.values(content=None, reasoning=None, failure_message=None, salts=None))
    for change in ({"content": "forged"}, {"answer": "1"}, {"salts": b""}):
        with engine.connect() as connection, pytest.raises(Exception, match="agent_records only grows"):
            connection.execute(erased.values(**change))


def test_the_application_adds_to_the_log_and_moves_its_head(application_url: str) -> None:
    engine = open_sync_engine(application_url)
    with engine.begin() as connection:
        head = connection.execute(tables.witness_head.select().with_for_update()).one()
        entry = {"idx": head.tree_size, "leaf_hash": b"h" * 32, "entry": b"{}"}
        connection.execute(tables.witness_entries.insert(), entry)
        connection.execute(tables.witness_head.update().values(tree_size=head.tree_size + 1, frontier=b"g" * 32))
        connection.execute(tables.deliberations.update().values(status="failed"))
        connection.execute(tables.specifications.update().values(salts=None))
    with engine.connect() as connection:
        assert connection.execute(tables.witness_head.select()).one() == (1, 4, b"g" * 32)


def test_the_application_adds_calls_and_charges_moves_what_is_spent_sets_the_halt_and_forgets_old_keys(
    application_url: str,
) -> None:
    halts, keys = tables.halt_state, tables.idempotency_keys
    call = {"deliberation_id": _KEPT, "round_number": 1, "agent_id": "archon-1", "purpose": "answer", "leaf_index": 9}
    key = {"scope": "", "idempotency_key": "k", "body_sha256": "b" * 64, "deliberation_id": _KEPT}
    engine = open_sync_engine(application_url)
    with engine.begin() as connection:
        assert connection.execute(halts.select()).one() == (1, False, None, None)
        connection.execute(tables.calls.insert(), {**call, "attempt": 3, "day": "2026-11-20", "held_tokens": 9})
        connection.execute(tables.charges.insert(), {**_CHARGE, "deliberation_id": _KEPT, "attempt": 3})
        spent = {"key_name": "saver", "day": "2026-11-20", "amount": 9}
        connection.execute(tables.spending.insert(), spent)
        connection.execute(tables.spending.update().values(amount=tables.spending.c.amount - 4))
        connection.execute(halts.update().values(halted=True, reason="drill", since=_MOMENT))
        connection.execute(keys.insert(), {**key, "created_at": _MOMENT})
    with engine.begin() as connection:
        assert connection.execute(halts.select()).one() == (1, True, "drill", _MOMENT)
        assert connection.execute(keys.delete()).rowcount == 1
        calls = connection.execute(tables.calls.select().where(tables.calls.c.deliberation_id == _KEPT)).all()
        assert [row.attempt for row in calls] == [1, 2, 3]
        assert connection.execute(tables.spending.select()).one() == ("saver", "2026-11-20", 5)


def test_an_upgrade_makes_a_role_that_works_and_cannot_change_the_log(ground: Ground, tmp_path: Path) -> None:
    settings = load_settings(
        {
            "CONCLAVE_DATA_DIR": str(tmp_path),
            "CONCLAVE_DATABASE_URL": _text(ground.application),
            "CONCLAVE_OWNER_DATABASE_URL": _text(ground.owner),
        },
        None,
    )
    assert upgrade_database(settings) == current_revision(settings.database_url)
    engine = open_sync_engine(settings.database_url)
    with engine.begin() as connection:
        _write_record(connection)
    with ground.connect("application") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("UPDATE witness_entries SET entry = ''")
    assert rights_beyond_appending(settings.database_url) == []


def test_an_upgrade_of_a_present_schema_lets_a_new_role_in(ground: Ground) -> None:
    upgrade(_text(ground.owner))
    with pytest.raises(DependencyUnavailableError):
        current_revision(_text(ground.application))
    upgrade(_text(ground.owner), application_url=_text(ground.application))
    assert is_current(_text(ground.application))


def test_an_upgrade_takes_away_what_a_role_had_been_given_beyond_its_rights(ground: Ground) -> None:
    owner, application = _text(ground.owner), _text(ground.application)
    upgrade(owner, application_url=application)
    role = sql.Identifier(str(ground.application.username))
    with ground.connect("owner") as connection:
        for right in ("DELETE ON witness_entries", "UPDATE (entry) ON witness_entries", "CREATE ON SCHEMA public"):
            connection.execute(sql.SQL(f"GRANT {right} TO {{}}").format(role))
    excess = rights_beyond_appending(application)
    assert set(excess) == {"CREATE in schema public", "DELETE on witness_entries", "UPDATE on witness_entries"}
    upgrade(owner, application_url=application)
    assert rights_beyond_appending(application) == []


@pytest.mark.parametrize("right", ["DELETE ON witness_entries", "CREATE ON SCHEMA public", "INSERT ON witness_head"])
def test_an_upgrade_refuses_a_role_that_everybodys_rights_let_change_the_record(ground: Ground, right: str) -> None:
    upgrade(_text(ground.owner))
    with ground.connect("owner") as connection:
        connection.execute(f"GRANT {right} TO PUBLIC".encode())
    with pytest.raises(ConfigurationError, match=right.partition(" ")[0]) as refused:
        upgrade(_text(ground.owner), application_url=_text(ground.application))
    assert refused.value.variable == "CONCLAVE_DATABASE_URL"
    assert "PUBLIC" in refused.value.remedy


def test_an_owner_that_may_not_make_roles_is_refused_and_nothing_is_left_behind(ground: Ground) -> None:
    with ground.connect("admin") as connection:
        connection.execute(f"ALTER ROLE {ground.owner.username} NOCREATEROLE".encode())
    with pytest.raises(ConfigurationError, match="may not make the role") as refused:
        upgrade(_text(ground.owner), application_url=_text(ground.application))
    assert refused.value.variable == "CONCLAVE_OWNER_DATABASE_URL"
    assert "CREATE ROLE" in refused.value.remedy
    assert str(ground.application.password) not in str(refused.value)
    assert current_revision(_text(ground.owner)) is None


def test_an_owner_that_does_not_own_the_tables_cannot_let_anybody_in(ground: Ground) -> None:
    upgrade(_text(ground.admin))
    with ground.connect("admin") as connection:
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ground.owner.username}".encode())
    with pytest.raises(ConfigurationError) as refused:
        upgrade(_text(ground.owner), application_url=_text(ground.application))
    assert refused.value.variable == "CONCLAVE_OWNER_DATABASE_URL"


def test_a_password_reaches_the_server_as_its_verifier_only(ground: Ground) -> None:
    upgrade(_text(ground.owner))
    sent: list[str] = []
    engine = open_sync_engine(ground.owner)
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: sent.append(given[2]))
        grant(connection, str(ground.application.username), ground.application.password)
    created = next(statement for statement in sent if statement.startswith("CREATE ROLE"))
    assert "SCRAM-SHA-256$" in created
    assert not any(str(ground.application.password) in statement for statement in sent)
    assert is_current(_text(ground.application))


@pytest.mark.parametrize("way", ["superuser", "member of the owner", "owner of the database", "owner of the schema"])
def test_whoever_could_become_the_owner_is_told_from_the_application(ground: Ground, way: str) -> None:
    owner, application = _text(ground.owner), _text(ground.application)
    upgrade(owner, application_url=application)
    role = sql.Identifier(str(ground.application.username))
    names = {
        "role": role,
        "owner": sql.Identifier(str(ground.owner.username)),
        "database": sql.Identifier(str(ground.owner.database)),
    }
    statement = {
        "superuser": sql.SQL("ALTER ROLE {role} SUPERUSER"),
        "member of the owner": sql.SQL("REVOKE {role} FROM {owner}; GRANT {owner} TO {role} WITH INHERIT FALSE"),
        "owner of the database": sql.SQL("ALTER DATABASE {database} OWNER TO {role}"),
        "owner of the schema": sql.SQL("ALTER SCHEMA public OWNER TO {role}"),
    }[way]
    engine = open_sync_engine(application)
    with engine.connect() as connection:
        assert not runs_as_owner(connection)
    with ground.connect("admin") as connection_of_admin:
        connection_of_admin.execute(statement.format(**names))
    with engine.connect() as connection:
        assert runs_as_owner(connection)
    assert rights_beyond_appending(application) == ["own the tables"]
    with pytest.raises(ConfigurationError, match="can become its owner"):
        upgrade(_text(ground.admin), application_url=application)


def test_the_owner_runs_as_owner_even_as_another_role(ground: Ground) -> None:
    upgrade(_text(ground.owner), application_url=_text(ground.application))
    engine = open_sync_engine(ground.admin)
    with engine.connect() as connection:
        assert runs_as_owner(connection)
        role = connection.dialect.identifier_preparer.quote_identifier(str(ground.application.username))
        connection.exec_driver_sql(f"SET ROLE {role}")
        assert runs_as_owner(connection)


def test_whoever_has_the_file_of_sqlite_owns_it(sqlite_file: Path) -> None:
    with open_sync_engine(f"sqlite:///{sqlite_file}").connect() as connection:
        assert runs_as_owner(connection)


def test_an_upgrade_for_the_owners_own_role_grants_nothing(ground: Ground) -> None:
    upgrade(_text(ground.owner), application_url=_text(ground.owner))
    assert rights_beyond_appending(_text(ground.owner)) == ["own the tables"]


def test_an_owner_of_another_kind_of_database_is_refused(ground: Ground, sqlite_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="another kind of database"):
        upgrade(_text(ground.owner), application_url=f"sqlite:///{sqlite_file}")
    assert current_revision(_text(ground.owner)) is None


def test_an_application_without_a_user_is_refused(ground: Ground) -> None:
    nobody = f"postgresql://{ground.owner.host}:{ground.owner.port}/{ground.owner.database}"
    with pytest.raises(ConfigurationError, match="names no user"):
        upgrade(_text(ground.owner), application_url=nobody)


def test_a_database_without_tables_has_no_rights_to_judge(ground: Ground) -> None:
    with pytest.raises(DependencyUnavailableError, match="tables are missing"):
        rights_beyond_appending(_text(ground.owner))


def test_every_table_has_its_rights_written_down() -> None:
    assert set(RIGHTS) == {*tables.metadata.tables, "alembic_version"}
    assert set(_KEYS) <= set(RIGHTS)
    assert [table for table, rights in RIGHTS.items() if "DELETE" in rights] == [
        "disclosures",
        "idempotency_keys",
        "webhook_deliveries",
    ]


@pytest.mark.parametrize(("who", "works"), [("application", True), ("owner", False)])
async def test_doctor_says_whether_the_application_runs_as_owner(
    ground: Ground, tmp_path: Path, who: str, works: bool
) -> None:
    upgrade(_text(ground.owner), application_url=_text(ground.application))
    address = _text(getattr(ground, who))
    given = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_DATABASE_URL": address, "CONCLAVE_ORCHESTRATOR": "simulated"}
    settings = load_settings(given, None)
    check = next(check for check in await examine(settings) if check.name == "database role")
    assert check.works is works
    assert ("CONCLAVE_OWNER_DATABASE_URL" in check.remedy) is not works
    assert str(getattr(ground, who).password) not in f"{check}"
