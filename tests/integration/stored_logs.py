"""A sound log with deliberations in each database, somebody who can write any row of it, and what reads it."""

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from api.bootstrap import verification_tools
from application.ports.witness_log import Erasure
from application.services.log_audit import AuditReport, audit
from application.services.witness_service import WitnessService
from domain.errors.deliberation import RecordMismatchError
from domain.witness.entry import accepted, time_text
from domain.witness.merkle import CompactRange, leaf_hash
from infrastructure.persistence import tables
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.deliberation_specimens import (
    NOON,
    committing,
    deliberation,
    ended,
    failed,
    opening,
    record,
    revised,
    started,
)

__all__ = ["COLUMNS", "ORIGIN", "SIGNED", "Ground", "Mutation", "Row", "Stored", "sound_log"]

SIGNED = (1, 200, 256, 300, 520)
ORIGIN = "conclave.test/witness"
COLUMNS = {
    "witness_entries": "idx, leaf_hash, deliberation_id, sequence, entry",
    "witness_nodes": "tile_level, place, hash",
    "witness_checkpoints": "tree_size, note",
    "witness_head": "id, tree_size, frontier",
    "erasures": "deliberation_id, idx",
    "deliberations": ", ".join(tables.deliberations.columns.keys()),
    "specifications": ", ".join(tables.specifications.columns.keys()),
    "agent_records": ", ".join(tables.agent_records.columns.keys()),
}


Row = list[Any]


@dataclass
class Stored:
    """All rows of the log as they stand in the database, to be changed at will."""

    witness_entries: list[Row] = field(default_factory=list)
    witness_nodes: list[Row] = field(default_factory=list)
    witness_checkpoints: list[Row] = field(default_factory=list)
    witness_head: list[Row] = field(default_factory=list)
    erasures: list[Row] = field(default_factory=list)
    deliberations: list[Row] = field(default_factory=list)
    specifications: list[Row] = field(default_factory=list)
    agent_records: list[Row] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self.witness_entries)

    def build_again(self) -> None:
        """Leaves, nodes and head as they would be had these entries been appended honestly."""
        tree, self.witness_nodes = CompactRange(), []
        for row in self.witness_entries:
            row[1] = leaf_hash(row[4])
            self.witness_nodes += [list(node) for node in tree.extend([row[1]])]
        self.witness_head = [[1, tree.size, tree.to_bytes()]]


@dataclass
class Owner:
    """Somebody who can run any statement, and has got rid of the guards."""

    run: Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
    run_many: Callable[[str, Sequence[Row]], None]
    written: Stored = field(default_factory=Stored)

    def read(self) -> Stored:
        """Everything as it stands."""
        rows = {
            table: [
                [bytes(value) if isinstance(value, memoryview) else value for value in row]
                for row in self.run(f"SELECT {columns} FROM {table} ORDER BY 1, 2", ())  # noqa: S608 - our own tables
            ]
            for table, columns in COLUMNS.items()
        }
        self.written = Stored(**rows)
        return deepcopy(self.written)

    def write(self, wanted: Stored) -> None:
        """Make the tables hold exactly this."""
        for table, columns in COLUMNS.items():
            rows = getattr(wanted, table)
            if rows != getattr(self.written, table):
                self.run(f"DELETE FROM {table}", ())  # noqa: S608 - our own tables
                marks = ", ".join("?" * len(columns.split(",")))
                self.run_many(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)  # noqa: S608 - our own tables
        self.written = deepcopy(wanted)


@dataclass
class Anchored:
    """An anchor that holds one checkpoint."""

    note: str
    name: str = "elsewhere"

    async def latest(self) -> str | None:
        """That checkpoint."""
        return self.note

    async def publish(self, note: str, *, old_size: int, consistency: Sequence[bytes]) -> None:
        """Nothing is published by these tests."""
        raise NotImplementedError


@dataclass
class Ground:
    """A sound log, whoever may change it, and what reads it."""

    owner: Owner
    log: SqlWitnessLog
    repository: SqlDeliberationRepository
    sound: Stored
    signer: CheckpointSigner
    newest: str

    async def audit(self, *, log_alone: bool = False) -> AuditReport:
        """What the audit says."""
        deliberations = None if log_alone else self.repository
        key, tools = self.signer.verifier_key, verification_tools()
        return await audit(self.log, key=key, tools=tools, deliberations=deliberations)

    async def shown(self) -> tuple[bool, bool]:
        """Whether every deliberation is shown when it is asked for, and whether all of them are listed."""
        alone = True
        for row in self.owner.run("SELECT id FROM deliberations", ()):
            try:
                await self.repository.get(row[0])
            except RecordMismatchError:
                alone = False
        try:
            await self.repository.page(status=None, key_name=None, limit=50, cursor=None)
        except RecordMismatchError:
            return alone, False
        return alone, True

    async def refusal_at_start(self) -> str | None:
        """What stops a service that starts now, whose newest checkpoint is anchored."""
        service = WitnessService(
            log=self.log, signer=self.signer, tools=verification_tools(), anchors=[Anchored(self.newest)]
        )
        await service.check_at_start()
        return None if service.problem is None else str(service.problem)


@asynccontextmanager
async def sound_log(url: str) -> AsyncIterator[Ground]:
    """A log of deliberations and other entries in the database at this address, which is still empty."""
    upgrade(url)
    database = await open_database(url)
    repository, log = SqlDeliberationRepository(database), SqlWitnessLog(database)
    signer = CheckpointSigner(SigningKey.from_seed(bytes(range(32))), ORIGIN)
    await _fill(repository, log, signer)
    with ExitStack() as opened:
        open_as_owner = _owner_of_sqlite if url.startswith("sqlite:") else _owner_of_postgres
        owner = open_as_owner(opened, url)
        sound = owner.read()
        newest = await log.latest_checkpoint()
        assert newest is not None
        yield Ground(owner, log, repository, sound, signer, newest)
    await repository.close()
    await database.close()


async def _fill(repository: SqlDeliberationRepository, log: SqlWitnessLog, signer: CheckpointSigner) -> None:
    records = [record(0), record(1, answer="no"), failed(2)]
    for number in range(4):
        own = deliberation(key_name="mine")
        await repository.add(own, accepted(own), lease="me/1", lease_s=10.0)
        running = started(own)
        await repository.append(opening(running))
        await repository.append(committing(running.id, records=records))
        if number < 3:
            over = revised(running, [records]) if number == 2 else ended(running, records)
            await repository.append(committing(running.id, deliberation=over))
        if number == 1:
            document = {"type": "erased", "at": time_text(NOON), "deliberation_id": own.id, "reason": None}
            await log.erase(Erasure(own.id, document))
        await log.append([_fact(number * 1_000 + each) for each in range(130)])
    queued = deliberation()
    await repository.add(queued, accepted(queued), lease="me/1", lease_s=10.0)
    leaves = await log.leaf_hashes(0, 1_000)
    tree = CompactRange()
    for size in SIGNED:
        tree.extend(leaves[tree.size : size])
        await log.add_checkpoint(size, signer.sign(size, tree.root()))


def _fact(number: int) -> Mapping[str, Any]:
    return {"type": "test.fact", "at": time_text(NOON), "number": number}


def _owner_of_sqlite(opened: ExitStack, url: str) -> Owner:
    file = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    opened.callback(file.close)
    file.execute("PRAGMA synchronous = OFF")
    for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        file.execute(f"DROP TRIGGER {name}")

    def run_many(statement: str, rows: Sequence[Row]) -> None:
        file.execute("BEGIN")
        file.executemany(statement, rows)
        file.execute("COMMIT")

    return Owner(lambda statement, values: file.execute(statement, values).fetchall(), run_many)


def _owner_of_postgres(opened: ExitStack, url: str) -> Owner:
    address = url.replace("postgresql+psycopg://", "postgresql://", 1)
    session = opened.enter_context(psycopg.connect(address, autocommit=True))
    for table in COLUMNS:
        session.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(sql.Identifier(table)))

    def run(statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        cursor = session.execute(statement.replace("?", "%s").encode(), values)
        return cursor.fetchall() if cursor.description else []

    def run_many(statement: str, rows: Sequence[Row]) -> None:
        with session.transaction(), session.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s").encode(), rows)

    return Owner(run, run_many)


Mutation = Callable[[Stored, random.Random], None]
