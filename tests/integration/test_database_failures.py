"""Databases that are killed, silent, locked, full, damaged or none: each told as what it is, and used again when it is back."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, select

from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import LogUnverifiedError
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from infrastructure.persistence.database import Database, PostgresDatabase, open_database
from infrastructure.persistence.engine import open_async_engine
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.tables import webhook_cursors
from tests.deliberation_specimens import committing, deliberation, intent, record
from tests.servers.postgres import PostgresServer


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database with the tables."""
    url = f"sqlite:///{tmp_path}/conclave.db"
    upgrade(url)
    return url


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    """The same, open."""
    database = await open_database(sqlite_url)
    yield database
    await database.close()


async def test_a_postgres_that_is_killed_is_named_and_used_again_when_it_is_back(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await asyncio.to_thread(upgrade, postgres_url)
    database = await open_database(postgres_url)
    repository = SqlDeliberationRepository(database)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    await repository.append(committing(added.id, [intent(1)]))
    await asyncio.to_thread(postgres_server.kill)
    again = committing(added.id, records=[record(1)])
    for attempt in (repository.append(again), repository.get(added.id), repository.check()):
        with pytest.raises(DependencyUnavailableError) as away:
            await attempt
        assert away.value.dependency == "database"
    await asyncio.to_thread(postgres_server.start)
    await repository.append(again)
    assert [event.sequence for event in await repository.events(added.id, after=0, limit=9)] == [1, 2, 3]
    await repository.check()
    await repository.close()
    await database.close()


async def test_a_postgres_that_does_not_answer_in_time_is_named_and_used_again_when_it_does(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await asyncio.to_thread(upgrade, postgres_url)
    database = PostgresDatabase(open_async_engine(postgres_url, connections=2), patience_s=2.0)
    repository = SqlDeliberationRepository(database)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    commit = committing(added.id, records=[record(1)])
    with psycopg.connect(postgres_server.conninfo(postgres_url.rpartition("/")[2])) as locker:
        locker.execute("LOCK TABLE witness_entries")
        for attempt in (repository.append(commit), repository.events(added.id, after=0, limit=9)):
            with pytest.raises(DependencyUnavailableError, match="does not answer in time"):
                await attempt
    await repository.append(commit)
    assert [event.sequence for event in await repository.events(added.id, after=0, limit=9)] == [1, 2]
    await repository.close()
    await database.close()


async def test_a_postgres_that_only_reads_is_named(postgres_server: PostgresServer, postgres_url: str) -> None:
    await asyncio.to_thread(upgrade, postgres_url)
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_server.conninfo(name), autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = await open_database(postgres_url)
    repository = SqlDeliberationRepository(database)
    new = deliberation()
    adding = repository.add(new, accepted(new), lease="me/1", lease_s=10)
    for attempt in (repository.check(), adding):
        with pytest.raises(DependencyUnavailableError, match="read-only"):
            await attempt
    assert await repository.get("unknown") is None
    await repository.close()
    await database.close()


async def test_a_sqlite_that_others_keep_locked_is_named_and_works_again_afterwards(sqlite_url: str) -> None:
    database = await open_database(sqlite_url, busy_timeout_s=0.05)
    repository = SqlDeliberationRepository(database)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    locker = sqlite3.connect(str(database.url.database), isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    for attempt in (repository.append(committing(added.id, [intent(1)])), repository.check()):
        with pytest.raises(DependencyUnavailableError, match="write lock"):
            await attempt
    assert await repository.get(added.id) == added
    locker.close()
    await repository.append(committing(added.id, [intent(2)]))
    events = await repository.events(added.id, after=0, limit=9)
    assert [(event.sequence, event.data.get("agent_id")) for event in events] == [(1, None), (2, "archon-2")]
    await repository.close()
    await database.close()


async def test_a_full_disk_is_named_and_nothing_of_the_append_is_stored(sqlite: Database) -> None:
    repository = SqlDeliberationRepository(sqlite)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    pages = await sqlite.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar())
    await sqlite.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())
    with pytest.raises(DependencyUnavailableError, match="disk is full"):
        await repository.append(committing(added.id, records=[record(1, content="x" * 100_000)]))
    assert len(await repository.events(added.id, after=0, limit=9)) == 1
    assert list(await repository.records(added.id)) == []
    await repository.close()


async def test_a_sqlite_without_room_is_not_ready_although_it_can_be_read_until_there_is_room(sqlite: Database) -> None:
    async def limit(pages: int) -> None:
        await sqlite.write(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar())

    repository = SqlDeliberationRepository(sqlite)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    pages = await sqlite.read(lambda connection: connection.exec_driver_sql("PRAGMA page_count").scalar_one())
    await limit(pages)
    await _is_ready_again_only_after(repository, sqlite, added, limit(1_000_000))
    cache = await sqlite.write(lambda connection: connection.exec_driver_sql("PRAGMA cache_size").scalar())
    assert cache == -2000
    await repository.close()


async def test_a_postgres_without_room_is_not_ready_although_it_can_be_read_until_there_is_room(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    await asyncio.to_thread(upgrade, postgres_url)
    name = postgres_url.rpartition("/")[2]
    tables = ("agent_records", "webhook_cursors")

    def change(*statements: str) -> None:
        with psycopg.connect(postgres_server.conninfo(name), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    async def make_room() -> None:
        await asyncio.to_thread(change, *(f"DROP TRIGGER full_disk ON {table}" for table in tables))

    database = await open_database(postgres_url)
    repository = SqlDeliberationRepository(database)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    change(
        "CREATE FUNCTION refuse_for_room() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$",
        *(
            f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_for_room()"
            for table in tables
        ),
    )
    await _is_ready_again_only_after(repository, database, added, make_room())
    await repository.close()
    await database.close()


async def _is_ready_again_only_after(
    repository: SqlDeliberationRepository, database: Database, added: Deliberation, room: Coroutine[Any, Any, None]
) -> None:
    await repository.check()
    commit = committing(added.id, records=[record(1, content="x" * 100_000)])
    with pytest.raises(DependencyUnavailableError) as refused:
        await repository.append(commit)
    assert refused.value.told == "The database takes no writes, because the disk is full; nothing is lost."
    for _ in range(2):
        with pytest.raises(DependencyUnavailableError) as unready:
            await repository.check()
        assert unready.value.problem == "the disk is full"
        assert await repository.get(added.id) is not None
    await room
    await repository.check()
    await repository.append(commit)
    await repository.check()
    trials = select(func.count()).select_from(webhook_cursors)
    assert await database.read(lambda connection: connection.execute(trials).scalar()) == 0


async def test_a_database_that_takes_writes_is_tried_with_none(sqlite: Database) -> None:
    repository = SqlDeliberationRepository(sqlite)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    before = await asyncio.to_thread(os.stat, f"{sqlite.url.database}-wal")
    await repository.check()
    after = await asyncio.to_thread(os.stat, f"{sqlite.url.database}-wal")
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    await repository.close()


async def test_a_database_without_the_tables_says_what_to_do(tmp_path: Path, postgres_url: str) -> None:
    for url in (f"sqlite:///{tmp_path}/empty.db", postgres_url):
        database = await open_database(url)
        repository = SqlDeliberationRepository(database)
        for attempt in (repository.get("unknown"), repository.check(), repository.request_cancel("unknown")):
            with pytest.raises(DependencyUnavailableError, match="conclave db upgrade"):
                await attempt
        await repository.close()
        await database.close()


async def test_a_file_that_cannot_be_used_as_a_database_is_named(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailableError, match="cannot be opened"):
        await open_database(f"sqlite:///{tmp_path}/no/such/folder/conclave.db")
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 1000)
    with pytest.raises(DependencyUnavailableError, match="no SQLite database"):
        await open_database(f"sqlite:///{tmp_path}/letter.txt")


async def test_a_postgres_that_is_not_there_or_refuses_is_named_without_its_password(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    wrong = f"postgresql://conclave:s3cret@127.0.0.1:{postgres_server.port}/postgres"
    for url in (wrong, postgres_url.rpartition("/")[0] + "/no_such_database", "postgresql://u:s3cret@127.0.0.1:1/db"):
        with pytest.raises(DependencyUnavailableError) as away:
            await open_database(url)
        told: BaseException | None = away.value
        while told is not None:
            assert "s3cret" not in f"{told} {told!r}"
            told = told.__cause__


@pytest.mark.parametrize(
    "url",
    [
        "",
        "conclave.db",
        "mysql://root:s3cret@localhost/db",
        "postgresql+asyncpg://u:s3cret@localhost/db",
        "postgresql://u:p@ss:s3cret@localhost:port/db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory&uri=true",
        "sqlite:///conclave.db?synchronous=off",
        "sqlite+aiosqlite:///conclave.db",
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_by_the_name_of_its_variable(url: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        await open_database(url)
    assert refusal.value.variable == "CONCLAVE_DATABASE_URL"
    assert "s3cret" not in str(refusal.value)


@pytest.mark.parametrize(
    "damage", ["DELETE FROM witness_head", "UPDATE witness_head SET frontier = x'00', tree_size = 9"]
)
async def test_a_head_that_somebody_damaged_takes_no_more(sqlite: Database, damage: str) -> None:
    repository = SqlDeliberationRepository(sqlite)

    def break_it(connection: Connection) -> None:
        for guard in ("witness_head_no_delete", "witness_head_grows"):
            connection.exec_driver_sql(f"DROP TRIGGER {guard}")
        connection.exec_driver_sql(damage)

    await sqlite.write(break_it)
    new = deliberation()
    with pytest.raises(LogUnverifiedError, match="fsck"):
        await repository.add(new, accepted(new), lease="me/1", lease_s=10)
    assert await repository.get(new.id) is None
    await repository.close()
