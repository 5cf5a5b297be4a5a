"""What somebody changes past the database's guards is answered with 503 and counted, and a read sees one moment."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, select

from api.main import RestServer
from application.ports.metrics import NullMetrics
from domain.witness.entry import accepted
from infrastructure.persistence import tables
from infrastructure.persistence.database import Database, open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from tests.conclave_fixture import Answer, Client, open_stub_conclave
from tests.deliberation_specimens import deliberation

# So many that somebody wants something else, whose reason a list shows.
QUESTION = {"question": "Shall we?", "answer": {"kind": "verdict"}, "agents": {"count": 12}}
FORGERIES = (
    "UPDATE specifications SET specification = replace(specification, 'Shall we?', 'Shall we not?')",
    """UPDATE deliberations SET result = replace(result, '"votes_to_flip":', '"votes_to_flip":1')""",
    "UPDATE deliberations SET status = 'inquorate'",
    "UPDATE deliberations SET last_index = last_index - 1",
    "UPDATE agent_records SET reasoning = 'because'",
    "UPDATE witness_entries SET sequence = 9 - sequence WHERE deliberation_id IS NOT NULL",
)


class Counting(NullMetrics):
    """Counts what did not match."""

    def __init__(self) -> None:
        self.mismatches = 0

    def record_mismatched(self) -> None:
        """One more."""
        self.mismatches += 1


@dataclass
class Stack:
    """A server over a database with a deliberation that has ended, and somebody who owns that database."""

    client: Client
    database: Database
    repository: SqlDeliberationRepository
    own: str
    execute: Callable[[str], None]
    metrics: Counting

    async def ask(self, path: str) -> Answer:
        """What is answered to a GET."""
        return await asyncio.to_thread(self.client.ask, "GET", path)


@pytest.fixture(params=["sqlite", "postgres"])
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    """The same over each database."""
    url = f"sqlite:///{tmp_path}/conclave.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    await asyncio.to_thread(upgrade, url)
    async with AsyncExitStack() as opened:
        database = await open_database(url)
        opened.push_async_callback(database.close)
        metrics = Counting()
        repository = SqlDeliberationRepository(database, metrics=metrics)
        opened.push_async_callback(repository.close)
        conclave = await opened.enter_async_context(open_stub_conclave(repository=repository))
        server = RestServer(conclave, port=0, drain_s=0.2, hang_up_s=1)
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        running = asyncio.create_task(
            server.run(on_listening=lambda urls: listening.set_result(int(urls[0].rpartition(":")[2])))
        )
        client = Client(await listening)
        answer = await asyncio.to_thread(client.post, QUESTION, query="?wait=30")
        assert answer.status == 200, answer
        yield Stack(client, database, repository, answer.document["id"], _owner(opened, url), metrics)
        server.stop()
        await running


def _owner(opened: AsyncExitStack, url: str) -> Callable[[str], None]:
    if url.startswith("sqlite"):
        file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        opened.callback(file.close)
        for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            file.execute(f"DROP TRIGGER {name}")
        return lambda statement: _nothing(file.execute(statement))
    address = url.replace("postgresql+psycopg://", "postgresql://", 1)
    session = opened.enter_context(psycopg.connect(address, autocommit=True))
    for table in tables.metadata.tables:
        session.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
    return lambda statement: _nothing(session.execute(statement.encode()))


def _nothing(_given: Any) -> None:
    pass


@pytest.mark.parametrize("forgery", FORGERIES, ids=["question", "outcome", "status", "span", "reasoning", "sequence"])
async def test_a_deliberation_that_was_changed_is_not_shown_and_is_counted(stack: Stack, forgery: str) -> None:
    stack.execute(forgery)
    paths = [f"/v1/deliberations/{stack.own}", "/v1/deliberations", f"/v1/deliberations/{stack.own}/outputs"]
    paths.append(f"/v1/deliberations/{stack.own}/events")
    for path in paths:
        answer = await stack.ask(path)
        assert (answer.status, answer.problem) == (503, "record-mismatch"), path
    assert stack.metrics.mismatches == len(paths)


@pytest.mark.parametrize("column", ["content", "model_asked"])
async def test_what_no_list_shows_is_refused_where_it_is_shown(stack: Stack, column: str) -> None:
    stack.execute(f"UPDATE agent_records SET {column} = 'forged'")  # noqa: S608 - ours
    assert (await stack.ask("/v1/deliberations")).status == 200
    for path in (f"/v1/deliberations/{stack.own}", f"/v1/deliberations/{stack.own}/outputs"):
        assert (await stack.ask(path)).problem == "record-mismatch", path


async def test_what_was_listed_before_is_compared_again_once_it_is_changed(stack: Stack) -> None:
    for _ in range(2):
        assert (await stack.ask("/v1/deliberations")).status == 200
    stack.execute("UPDATE deliberations SET orchestrator = 'local'")
    assert (await stack.ask("/v1/deliberations")).problem == "record-mismatch"


async def test_a_read_of_several_statements_sees_one_moment(stack: Stack) -> None:
    loop = asyncio.get_running_loop()

    def count(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(tables.deliberations)).scalar_one()

    looked, written = asyncio.Event(), asyncio.Event()

    async def write_between() -> None:
        await looked.wait()
        added = deliberation()
        await stack.repository.add(added, accepted(added), lease="me/1", lease_s=10.0)
        written.set()

    writing = asyncio.create_task(write_between())
    if stack.database.dialect.name == "sqlite":

        def read(connection: Connection) -> tuple[int, int]:
            first = count(connection)
            loop.call_soon_threadsafe(looked.set)
            asyncio.run_coroutine_threadsafe(written.wait(), loop).result(30)
            return first, count(connection)

    else:
        from sqlalchemy.util import await_only

        def read(connection: Connection) -> tuple[int, int]:
            first = count(connection)
            looked.set()
            await_only(written.wait())
            return first, count(connection)

    assert await stack.database.read(read) == (1, 1)
    await writing
    assert await stack.database.read(count) == 2
