"""Each adapter of the witness log, empty, with deliberations that are added, ended and erased over it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, select

from application.ports.idempotency import IdempotencyKey
from application.ports.witness_log import Disclosure, Erasure, LoggedEntry, WitnessLog
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted, commitment, time_text
from domain.witness.merkle import leaf_hash, root_hash
from infrastructure.persistence import tables
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import NOON, committing, deliberation, ended, failed, opening, record, started

__all__ = ["WITNESSED", "Store", "Template", "Writer", "fact", "opened_store", "require_whole"]

_SALT = bytes(range(16))


@dataclass(frozen=True)
class Writer:
    """One process's adapters over the data."""

    log: WitnessLog
    repository: Any

    async def add(self, key: IdempotencyKey | None = None) -> Deliberation:
        """A new deliberation, running."""
        added = deliberation()
        await self.repository.add(added, accepted(added), lease="me/1", lease_s=10.0, idempotency=key)
        running = started(added)
        await self.repository.append(opening(running))
        return running

    async def end(self, running: Deliberation) -> Deliberation:
        """The same one, ended with an output and a failure."""
        records = [record(0, content="what it said"), failed(1)]
        over = ended(running, records)
        await self.repository.append(committing(running.id, records=records))
        await self.repository.append(committing(running.id, deliberation=over))
        return over

    async def erase(self, deliberation_id: str) -> LoggedEntry:
        """Erase it, the reason beside the entry."""
        return await self.log.erase(_erasure(deliberation_id))

    async def everything_read(self, deliberation_id: str) -> str:
        """All that the ports show of a deliberation, entries apart."""
        page = await self.repository.page(status=None, key_name=None, limit=50, cursor=None)
        found = await self.repository.get(deliberation_id)
        stored = [item.record for item in await self.repository.records(deliberation_id)]
        return repr([page, found, stored, await self.log.disclosures_of(deliberation_id)])


@dataclass(frozen=True)
class Store:
    """An adapter under test, and more of them over the same data."""

    writer: Writer
    open_another: Callable[[], Awaitable[Writer]]
    rows: Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Template:
    """A Postgres database with the tables, which is copied for each test, and the address of the application's role in it."""

    name: str
    application: str


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/conclave.db"
        upgrade(url)
        return url
    copy = request.getfixturevalue("empty_witness_postgres")
    if request.param == "postgres":
        owner: str = request.getfixturevalue("postgres_server").url(copy)
        return owner
    template: Template = request.getfixturevalue("witness_template")
    return make_url(template.application).set(database=copy).render_as_string(hide_password=False)


WITNESSED = ("memory", "sqlite", "postgres", "postgres as the application")


@asynccontextmanager
async def opened_store(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Store]:
    """The adapter that the parameter of the request names, of `WITNESSED`, empty."""
    if request.param == "memory":
        kept = InMemoryRepository()
        only = Writer(kept.log, kept)

        async def same() -> Writer:
            return only

        async def no_rows() -> str:
            return ""

        yield Store(only, same, no_rows)
        return
    url = _url(request, folder)
    opened: list[Callable[[], Awaitable[None]]] = []
    databases = []

    async def open_another() -> Writer:
        database = await open_database(url)
        databases.append(database)
        opened.append(database.close)
        repository = SqlDeliberationRepository(database)
        opened.append(repository.close)
        return Writer(SqlWitnessLog(database), repository)

    async def rows() -> str:
        def read(connection: Connection) -> str:
            holding = (tables.deliberations, tables.specifications, tables.agent_records)
            return repr([connection.execute(select(table)).all() for table in holding])

        return await databases[0].read(read)

    yield Store(await open_another(), open_another, rows)
    for close in reversed(opened):
        await close()


def fact(number: int, **fields: object) -> Mapping[str, Any]:
    return {"type": "test.fact", "at": time_text(NOON), "number": number, **fields}


def _erasure(deliberation_id: str) -> Erasure:
    reason = commitment(_SALT, "they asked us to")
    assert reason is not None
    document = {
        "type": "erased",
        "at": time_text(NOON),
        "deliberation_id": deliberation_id,
        "reason": reason,
        "key_name": None,
    }
    return Erasure(deliberation_id, document, [Disclosure(reason["sha256"], _SALT.hex(), "they asked us to")])


async def require_whole(log: WitnessLog) -> Sequence[LoggedEntry]:
    """All entries: without a gap, each under its own leaf hash, and the head and every node the root over them."""
    head = await log.head()
    entries = await log.entries(0, head.tree_size + 1_000)
    assert [entry.index for entry in entries] == list(range(head.tree_size))
    leaves = [leaf_hash(entry.entry) for entry in entries]
    assert [entry.leaf_hash for entry in entries] == leaves
    assert list(await log.leaf_hashes(0, head.tree_size + 1_000)) == leaves
    assert head.root_hash == root_hash(leaves)
    perfect = [root_hash(leaves[start : start + 256]) for start in range(0, head.tree_size - 255, 256)]
    assert list(await log.nodes(1, 0, 1_000)) == perfect
    return entries
