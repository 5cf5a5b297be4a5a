"""What was acknowledged is on disk: settings that make it so are in force, and neither a kill nor a lost word changes it."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, event, func, select

from application.ports.deliberation_repository import RememberedKey
from application.ports.idempotency import IdempotencyKey
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.idempotency import IdempotencyKeyTakenError
from domain.witness.entry import accepted
from infrastructure.persistence.database import Database, open_database
from infrastructure.persistence.engine import require_durable
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.tables import idempotency_keys
from tests.deliberation_specimens import (
    SettableClock,
    committing,
    deliberation,
    ended,
    intent,
    opening,
    record,
    started,
)
from tests.servers.postgres import PostgresServer

_T = TypeVar("_T")


_APPENDING_FOR_EVER = """
import asyncio, itertools, os, sys
from infrastructure.persistence.database import open_database
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from tests.deliberation_specimens import committing, intent

async def append(url, own):
    repository = SqlDeliberationRepository(await open_database(url))
    numbers = itertools.count(os.getpid() * 1_000_000)
    while True:
        some = [intent(number) for number in itertools.islice(numbers, 5)]
        await asyncio.gather(*(repository.append(committing(own, [each])) for each in some))
        print("acknowledged", flush=True)

asyncio.run(append(*sys.argv[1:]))
"""


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


class Counting:
    """A database that counts its write transactions, and forgets to say so when one of them was committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.url, self.dialect, self.read, self.close = database.url, database.dialect, database.read, database.close
        self.writes = 0
        self.loses_next_acknowledgement = False

    async def write(self, work: Callable[[Connection], _T]) -> _T:
        """As in `Database`, but for the two habits."""
        self.writes += 1
        result = await self._database.write(work)
        if self.loses_next_acknowledgement:
            self.loses_next_acknowledgement = False
            raise DependencyUnavailableError(dependency="database", problem="the connection was lost")
        return result


def _settings(connection: Connection) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers", "busy_timeout", "fullfsync")
    return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


async def test_every_connection_to_sqlite_is_durable_and_waits_for_others(sqlite: Database) -> None:
    both_are_in = threading.Barrier(2, timeout=30)

    def ask(connection: Connection) -> dict[str, Any]:
        both_are_in.wait()
        return _settings(connection)

    found = [*await asyncio.gather(sqlite.read(ask), sqlite.read(ask)), await sqlite.write(_settings)]
    assert (
        found
        == [
            {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "recursive_triggers": 1,
                "busy_timeout": 5000,
                "fullfsync": 1,
            }
        ]
        * 3
    )


async def test_a_writer_of_sqlite_takes_the_lock_at_once_and_a_reader_never(sqlite_url: str, sqlite: Database) -> None:
    other = sqlite3.connect(str(sqlite.url.database), isolation_level=None, timeout=0, check_same_thread=False)

    def try_to_write(_: Connection) -> str:
        try:
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            return str(error)
        return "free"

    assert await sqlite.write(try_to_write) == "database is locked"
    assert await sqlite.read(try_to_write) == "free"
    other.close()


@pytest.mark.parametrize(
    ("pragma", "found"),
    [
        ("synchronous = OFF", "synchronous = 0"),
        ("synchronous = NORMAL", "synchronous = 1"),
        ("journal_mode = DELETE", "'delete'"),
    ],
)
def test_a_sqlite_that_would_forget_is_refused(sqlite_url: str, pragma: str, found: str) -> None:
    engine = create_engine(sqlite_url)

    @event.listens_for(engine, "connect")
    def weaken(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA {pragma}")

    with engine.connect() as connection, pytest.raises(ConfigurationError, match=found) as refusal:
        require_durable(connection)
    engine.dispose()
    assert refusal.value.variable == "CONCLAVE_DATABASE_URL"


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_a_postgres_that_would_forget_is_refused(setting: str) -> None:
    def answer(question: str) -> SimpleNamespace:
        return SimpleNamespace(scalar=lambda: "off" if question == f"SHOW {setting}" else "on")

    connection = SimpleNamespace(dialect=SimpleNamespace(name="postgresql"), exec_driver_sql=answer)
    with pytest.raises(ConfigurationError, match=f"{setting} = 'off'"):
        require_durable(cast(Connection, connection))


async def test_every_connection_to_postgres_is_durable_whatever_the_default_is(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    conninfo = postgres_server.conninfo(name)
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
    database = await open_database(postgres_url)
    all_are_in = asyncio.Barrier(3)

    async def ask() -> Any:
        await all_are_in.wait()
        return await database.read(lambda connection: connection.exec_driver_sql("SHOW synchronous_commit").scalar())

    assert list(await asyncio.gather(ask(), ask(), ask())) == ["on"] * 3
    await database.close()


async def test_72_appends_in_one_turn_of_the_loop_share_one_commit(sqlite: Database) -> None:
    counting = Counting(sqlite)
    repository = SqlDeliberationRepository(counting)
    added = deliberation(agents=72)
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    counting.writes = 0
    async with asyncio.TaskGroup() as group:
        for number in range(72):
            group.create_task(repository.append(committing(added.id, [intent(number)], [record(number)])))
    assert counting.writes == 1
    await repository.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_commit_whose_acknowledgement_was_lost_is_stored_once(
    request: pytest.FixtureRequest, kind: str, sqlite_url: str
) -> None:
    url = sqlite_url if kind == "sqlite" else request.getfixturevalue("postgres_url")
    await asyncio.to_thread(upgrade, url)
    database = await open_database(url)
    counting = Counting(database)
    repository = SqlDeliberationRepository(counting)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    running = started(added)
    over = ended(running, [record(0), record(1)])
    commits = [
        opening(running),
        committing(added.id, records=[record(0)]),
        committing(added.id, records=[record(1)]),
        committing(added.id, deliberation=over),
    ]
    for commit in commits:
        counting.loses_next_acknowledgement = True
        with pytest.raises(DependencyUnavailableError):
            await repository.append(commit)
        await repository.append(commit)
    assert [event.sequence for event in await repository.events(added.id, after=0, limit=99)] == [1, 2, 3, 4, 5, 6]
    assert [item.record for item in await repository.records(added.id)] == [record(0), record(1)]
    assert await repository.get(added.id) == over
    await repository.close()
    await database.close()


async def test_a_closed_database_refuses_at_once(sqlite_url: str) -> None:
    database = await open_database(sqlite_url)
    await database.close()
    for attempt in (database.read(_settings), database.write(_settings)):
        with pytest.raises(DependencyUnavailableError, match="closed"):
            await attempt


async def test_nothing_acknowledged_is_lost_when_the_process_is_killed(
    sqlite_url: str, sqlite: Database, repository_root: Path, sized: Callable[[int, int], int]
) -> None:
    repository = SqlDeliberationRepository(sqlite)
    added = deliberation()
    await repository.add(added, accepted(added), lease="me/1", lease_s=10)
    acknowledged = 1
    for kill in range(sized(3, 300)):
        command = [sys.executable, "-c", _APPENDING_FOR_EVER, sqlite_url, added.id]
        batches = await asyncio.to_thread(_run_until_killed, command, repository_root, lines=1 + kill % 5)
        sequences = [event.sequence for event in await repository.events(added.id, after=0, limit=1_000_000)]
        assert sequences == list(range(1, len(sequences) + 1))
        assert len(sequences) >= acknowledged + 5 * batches
        acknowledged = len(sequences)
    await repository.close()


def _run_until_killed(command: list[str], folder: Path, *, lines: int) -> int:
    """How many lines the command had printed when it was killed, soon after the first `lines` of them."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        assert all(line == b"acknowledged\n" for line in first)
        return len(first) + child.stdout.read().count(b"acknowledged\n")


async def test_a_key_is_remembered_although_the_news_of_its_commit_was_lost(sqlite: Database) -> None:
    database = Counting(sqlite)
    repository = SqlDeliberationRepository(cast("Database", database))
    database.loses_next_acknowledgement = True
    added = deliberation()
    with pytest.raises(DependencyUnavailableError):
        await repository.add(added, accepted(added), idempotency=IdempotencyKey("", "lost", "a1" * 32))
    assert await repository.remembered("", "lost") == RememberedKey(added.id, "a1" * 32)
    await repository.close()


async def test_keys_that_have_expired_do_not_pile_up(sqlite: Database) -> None:
    clock = SettableClock()
    repository = SqlDeliberationRepository(sqlite, clock=clock)

    async def add_under(key: str) -> int:
        added = deliberation()
        await repository.add(added, accepted(added), idempotency=IdempotencyKey("", key, "a1" * 32))
        count = select(func.count()).select_from(idempotency_keys)
        return await sqlite.read(lambda connection: int(connection.execute(count).scalar_one()))

    assert [await add_under(f"old-{number}") for number in range(40)][-1] == 40
    clock.advance(24 * 3600)
    # Some at a time, so that nobody pays for all of them.
    assert await add_under("new-1") == 40 - 32 + 1
    assert await add_under("new-2") == 2
    await repository.close()


async def test_a_refused_key_leaves_no_trace_in_the_size_that_is_reported(sqlite: Database) -> None:
    repository = SqlDeliberationRepository(sqlite)
    first, second = deliberation(), deliberation()
    key = IdempotencyKey("", "once", "a1" * 32)
    await repository.add(first, accepted(first), idempotency=key)
    with pytest.raises(IdempotencyKeyTakenError):
        await repository.add(second, accepted(second), idempotency=key)
    assert repository.tree_size == 1
    await repository.close()
