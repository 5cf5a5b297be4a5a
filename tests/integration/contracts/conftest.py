"""The adapters of storage (memory, a SQLite file and a real Postgres) and the transports of the message bus."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from application.ports.message_bus import MessageBus
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import SettableClock
from tests.integration.contracts.buses import TRANSPORTS, BusPlace
from tests.integration.contracts.store import BUDGETS, Repository, Store
from tests.integration.contracts.witness_stores import Template
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a Postgres database with the tables, which is copied for each test: what is recorded cannot be emptied."""
    postgres_server.create_database("contract")
    upgrade(postgres_server.url("contract"))
    yield "contract"
    postgres_server.drop_database("contract")


@pytest.fixture
def empty_postgres(migrated_postgres: str, postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty copy."""
    postgres_server.create_database("contract_copy", template=migrated_postgres)
    yield postgres_server.url("contract_copy")
    postgres_server.drop_database("contract_copy")


@pytest.fixture(scope="session")
def witness_template(postgres_server: PostgresServer) -> Iterator[Template]:
    """The same for the witness log, with a role of the application beside the owner."""
    if not postgres_server.running:
        postgres_server.start()
    name = "witness_contract"
    postgres_server.create_database(name)
    owner = make_url(postgres_server.url(name))
    application = owner.set(username="witness_contract_application", password="a secret of tests")
    address = application.render_as_string(hide_password=False)
    upgrade(postgres_server.url(name), application_url=address)
    yield Template(name, address)
    if not postgres_server.running:
        postgres_server.start()
    postgres_server.drop_database(name)
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(application.username))))


@pytest.fixture
def empty_witness_postgres(witness_template: Template, postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty copy."""
    if not postgres_server.running:
        postgres_server.start()
    postgres_server.create_database("witness_contract_copy", template=witness_template.name)
    yield "witness_contract_copy"
    postgres_server.drop_database("witness_contract_copy")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each adapter in turn, empty."""
    clock = SettableClock()
    if request.param == "memory":
        gate = asyncio.Event()
        gate.set()

        @contextmanager
        def hold() -> Iterator[None]:
            gate.clear()
            yield
            gate.set()

        async def wait_at_gate() -> None:
            await gate.wait()

        kept = InMemoryRepository(clock=clock, before_commit=wait_at_gate, budgets=BUDGETS)

        async def same() -> Repository:
            return kept

        yield Store(kept, same, clock, hold, kept.log)
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/conclave.db"
        upgrade(url)
    else:
        url = request.getfixturevalue("empty_postgres")
    opened: list[Callable[[], Awaitable[None]]] = []

    async def open_another() -> Repository:
        database = await open_database(url)
        opened.append(database.close)
        repository = SqlDeliberationRepository(database, clock=clock, budgets=BUDGETS)
        opened.append(repository.close)
        return repository

    logging = await open_database(url)
    opened.append(logging.close)
    yield Store(await open_another(), open_another, clock, lambda: _locked(url), SqlWitnessLog(logging))
    for close in reversed(opened):
        await close()


@pytest.fixture(params=sorted(TRANSPORTS))
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BusPlace]:
    """Each transport of the message bus in turn, with nothing on it."""
    async with TRANSPORTS[request.param](request, tmp_path) as empty:
        yield empty


@pytest.fixture
def bus(place: BusPlace) -> MessageBus:
    """One object on the place, with the limits that it has by itself."""
    return place.open()


@contextmanager
def _locked(url: str) -> Iterator[None]:
    """Let nobody commit an event or a record, while everybody may read."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        assert address.database is not None
        connection = sqlite3.connect(address.database, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
        connection.close()
        return
    with psycopg.connect(_conninfo(url)) as locker:
        locker.execute("LOCK TABLE witness_entries, agent_records IN SHARE ROW EXCLUSIVE MODE")
        yield


def _conninfo(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)
