"""Whatever somebody who owns the database changes in the stored log, the audit or the check at start refuses it."""

import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from api.bootstrap import verification_tools
from application.services.log_audit import AuditReport, audit
from application.services.witness_service import WitnessService
from domain.errors.witness import VerificationRefusedError
from domain.witness.entry import accepted, time_text
from domain.witness.merkle import CompactRange, leaf_hash
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.deliberation_specimens import NOON, committing, deliberation, ended, opening, record, started

_SEED = 20_261_121
_SIGNED = (1, 200, 256, 300, 520)
_ORIGIN = "conclave.test/witness"
_COLUMNS = {
    "witness_entries": "idx, leaf_hash, deliberation_id, sequence, entry",
    "witness_nodes": "tile_level, place, hash",
    "witness_checkpoints": "tree_size, note",
    "witness_head": "id, tree_size, frontier",
}

Row = list[Any]


@dataclass
class Stored:
    """All rows of the log as they stand in the database, to be changed at will."""

    witness_entries: list[Row] = field(default_factory=list)
    witness_nodes: list[Row] = field(default_factory=list)
    witness_checkpoints: list[Row] = field(default_factory=list)
    witness_head: list[Row] = field(default_factory=list)

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
            for table, columns in _COLUMNS.items()
        }
        self.written = Stored(**rows)
        return deepcopy(self.written)

    def write(self, wanted: Stored) -> None:
        """Make the tables hold exactly this."""
        for table, columns in _COLUMNS.items():
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
    sound: Stored
    signer: CheckpointSigner
    newest: str

    async def audit(self) -> AuditReport:
        """What the audit says."""
        return await audit(self.log, key=self.signer.verifier_key, tools=verification_tools())

    async def refusal_at_start(self) -> str | None:
        """What stops a service that starts now, whose newest checkpoint is anchored."""
        service = WitnessService(
            log=self.log, signer=self.signer, tools=verification_tools(), anchors=[Anchored(self.newest)]
        )
        await service.check_at_start()
        return None if service.problem is None else str(service.problem)


@pytest.fixture(params=["sqlite", "postgres"])
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """The same log in each database."""
    url = f"sqlite:///{tmp_path}/conclave.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    upgrade(url)
    database = await open_database(url)
    repository, log = SqlDeliberationRepository(database), SqlWitnessLog(database)
    signer = CheckpointSigner(SigningKey.from_seed(bytes(range(32))), _ORIGIN)
    await _fill(repository, log, signer)
    with ExitStack() as opened:
        open_as_owner = _owner_of_sqlite if request.param == "sqlite" else _owner_of_postgres
        owner = open_as_owner(opened, url)
        sound = owner.read()
        newest = await log.latest_checkpoint()
        assert newest is not None
        yield Ground(owner, log, sound, signer, newest)
    await repository.close()
    await database.close()


async def _fill(repository: SqlDeliberationRepository, log: SqlWitnessLog, signer: CheckpointSigner) -> None:
    for number in range(4):
        own = deliberation()
        await repository.add(own, accepted(own), owner="me", lease_s=10.0)
        running = started(own)
        await repository.append(opening(running))
        records = [record(0), record(1)]
        await repository.append(committing(running.id, records=records))
        await repository.append(committing(running.id, deliberation=ended(running, records)))
        await log.append([_fact(number * 1_000 + each) for each in range(130)])
    leaves = await log.leaf_hashes(0, 1_000)
    tree = CompactRange()
    for size in _SIGNED:
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
    for table in _COLUMNS:
        session.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(sql.Identifier(table)))

    def run(statement: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        cursor = session.execute(statement.replace("?", "%s").encode(), values)
        return cursor.fetchall() if cursor.description else []

    def run_many(statement: str, rows: Sequence[Row]) -> None:
        with session.transaction(), session.cursor() as cursor:
            cursor.executemany(statement.replace("?", "%s").encode(), rows)

    return Owner(run, run_many)


def _flipped(data: bytes, draw: random.Random) -> bytes:
    """One bit of it turned over."""
    changed = bytearray(data)
    changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _other_bytes(data: bytes, draw: random.Random) -> bytes:
    return draw.choice((_flipped(data, draw), data[:-1], data + b"\x00", b"", bytes(len(data)), data[::-1], data * 2))


def _edit_entry(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[4] = draw.choice((_other_bytes(row[4], draw), row[4].replace(b":", b": ", 1)))


def _edit_entry_and_leaf(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[4] = _other_bytes(row[4], draw)
    row[1] = leaf_hash(row[4])


def _edit_leaf(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[1] = _other_bytes(row[1], draw)


def _swap_leaves(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[1], other[1] = other[1], one[1]


def _swap_entries(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[0], other[0] = other[0], one[0]


def _reorder(log: Stored, draw: random.Random) -> None:
    start = draw.randrange(log.size - 1)
    moved = log.witness_entries[start : start + draw.randrange(2, 40)]
    for row, place in zip(moved, [moved[-1][0], *(each[0] for each in moved[:-1])], strict=True):
        row[0] = place


def _repeat_entry(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_entries, 2)
    one[1:] = other[1:]


def _delete_entries(log: Stored, draw: random.Random) -> None:
    start = draw.randrange(log.size)
    del log.witness_entries[start : start + draw.choice((1, 1, 2, 50))]


def _shift_entries(log: Stored, draw: random.Random) -> None:
    for row in log.witness_entries[draw.randrange(log.size) :]:
        row[0] += 1


def _truncate(log: Stored, draw: random.Random) -> None:
    del log.witness_entries[draw.randrange(log.size) :]


def _insert_entry(log: Stored, draw: random.Random) -> None:
    copied = list(draw.choice(log.witness_entries))
    copied[0] = draw.choice((log.size, log.size + 1, log.size + 100, 10_000_000, 2**40, -1, -(2**40)))
    log.witness_entries.append(copied)


def _refile_entry(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[2] = draw.choice([None, "another"]) if row[2] is not None else "another"


def _keep_checkpoint_elsewhere(log: Stored, draw: random.Random) -> None:
    draw.choice(log.witness_checkpoints)[0] += draw.choice([-1, 1, 3, 1_000])


def _edit_node(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_nodes)
    row[2] = _other_bytes(row[2], draw)


def _swap_nodes(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_nodes, 2)
    one[2], other[2] = other[2], one[2]


def _delete_node(log: Stored, draw: random.Random) -> None:
    del log.witness_nodes[draw.randrange(len(log.witness_nodes))]


def _insert_node(log: Stored, draw: random.Random) -> None:
    level, place = draw.choice(((1, 2), (1, 3), (1, 1_000_000), (2, 0), (2, 7), (3, 0), (7, 0)))
    log.witness_nodes.append([level, place, draw.randbytes(32)])


def _edit_checkpoint(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_checkpoints)
    note = row[1]
    place = draw.randrange(len(note))
    other = draw.choice([each for each in "0A=/ \nz" if each != note[place]])
    row[1] = draw.choice(
        (note[:place] + other + note[place + 1 :], note[:place] + other + note[place:], note[:place], note + "\n", "")
    )


def _swap_checkpoints(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.witness_checkpoints, 2)
    one[1], other[1] = other[1], one[1]


def _sign_with_another_key(log: Stored, draw: random.Random) -> None:
    signer = CheckpointSigner(SigningKey.from_seed(draw.randbytes(32)), draw.choice((_ORIGIN, "other.test/log")))
    row = draw.choice(log.witness_checkpoints)
    tree = CompactRange()
    tree.extend([entry[1] for entry in log.witness_entries[: row[0]]])
    row[1] = signer.sign(row[0], tree.root())


def _insert_checkpoint(log: Stored, draw: random.Random) -> None:
    size = draw.choice([each for each in (0, 2, 255, 301, 519, 521, 2**40) if each not in _SIGNED])
    log.witness_checkpoints.append([size, draw.choice((draw.choice(log.witness_checkpoints)[1], "", "forged\n"))])


def _edit_frontier(log: Stored, draw: random.Random) -> None:
    head = log.witness_head[0]
    head[2] = _other_bytes(head[2], draw)


def _edit_size(log: Stored, draw: random.Random) -> None:
    head = log.witness_head[0]
    head[1] = draw.choice([each for each in (0, 1, head[1] - 1, head[1] + 1, head[1] * 2, -1) if each != head[1]])


def _move_head_back(log: Stored, draw: random.Random) -> None:
    tree = CompactRange()
    tree.extend([entry[1] for entry in log.witness_entries[: draw.randrange(log.size)]])
    log.witness_head = [[1, tree.size, tree.to_bytes()]]


def _delete_head(log: Stored, _: random.Random) -> None:
    log.witness_head = []


def _roll_back(log: Stored, draw: random.Random) -> None:
    """Everything as it was at an older size, but for the checkpoints."""
    del log.witness_entries[draw.randrange(_SIGNED[-1]) :]
    log.build_again()


def _fork(log: Stored, draw: random.Random) -> None:
    """An entry changed, and all that follows from it but the checkpoints."""
    row = log.witness_entries[draw.randrange(_SIGNED[-1])]
    row[4] = _flipped(row[4], draw)
    log.build_again()


def _roll_back_with_checkpoints(log: Stored, draw: random.Random) -> None:
    _roll_back(log, draw)
    log.witness_checkpoints = [row for row in log.witness_checkpoints if row[0] <= log.size]


def _fork_without_checkpoints(log: Stored, draw: random.Random) -> None:
    _fork(log, draw)
    log.witness_checkpoints = []


Mutation = Callable[[Stored, random.Random], None]

_AUDITED: Sequence[Mutation] = (
    _edit_entry,
    _edit_entry_and_leaf,
    _edit_leaf,
    _swap_leaves,
    _swap_entries,
    _reorder,
    _repeat_entry,
    _delete_entries,
    _shift_entries,
    _truncate,
    _insert_entry,
    _refile_entry,
    _keep_checkpoint_elsewhere,
    _edit_node,
    _swap_nodes,
    _delete_node,
    _insert_node,
    _edit_checkpoint,
    _swap_checkpoints,
    _sign_with_another_key,
    _insert_checkpoint,
    _edit_frontier,
    _edit_size,
    _move_head_back,
    _delete_head,
    _roll_back,
    _fork,
)
# Whole and older, or whole and another: only what was signed elsewhere tells.
_ANCHORED: Sequence[Mutation] = (_roll_back_with_checkpoints, _fork_without_checkpoints)


async def test_a_log_that_nobody_changed_is_sound(ground: Ground) -> None:
    report = await ground.audit()
    assert (report.entries, report.nodes, report.checkpoints) == (ground.sound.size, 2, len(_SIGNED))
    assert await ground.refusal_at_start() is None


async def test_no_mutation_of_a_stored_log_passes_the_audit(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(75, 10_000) if request.node.callspec.params["ground"] == "sqlite" else sized(25, 250)
    passed = []
    for number in range(count):
        mutate = _AUDITED[number % len(_AUDITED)]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        assert changed != ground.sound
        ground.owner.write(changed)
        try:
            await ground.audit()
        except VerificationRefusedError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever it is, it names nothing that is wrong
            passed.append(f"{number} {mutate.__name__}: {type(error).__name__}: {error}")
        else:
            passed.append(f"{number} {mutate.__name__}")
    assert passed == []
    ground.owner.write(ground.sound)
    await ground.audit()


async def test_a_whole_log_that_is_not_the_one_that_was_anchored_is_refused_at_start(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(10, 400) if request.node.callspec.params["ground"] == "sqlite" else sized(4, 20)
    passed = []
    for number in range(count):
        mutate = _ANCHORED[number % len(_ANCHORED)]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        ground.owner.write(changed)
        await ground.audit()
        if (await ground.refusal_at_start()) is None:
            passed.append(f"{number} {mutate.__name__}")
    assert passed == []


@pytest.mark.parametrize("mutate", [_edit_frontier, _edit_size, _move_head_back, _delete_head])
async def test_a_service_starts_on_no_changed_head_and_says_so(ground: Ground, mutate: Mutation) -> None:
    for number in range(4):
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        ground.owner.write(changed)
        assert (await ground.refusal_at_start()) is not None
