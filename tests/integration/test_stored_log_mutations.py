"""Whatever somebody who owns the database changes in the stored log, or in what is shown of deliberations, is refused and named."""

import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from api.bootstrap import verification_tools
from application.ports.witness_log import Erasure
from application.services.log_audit import AuditReport, audit
from application.services.witness_service import WitnessService
from domain.errors.deliberation import RecordMismatchError
from domain.errors.witness import VerificationRefusedError
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

_SEED = 20_261_121
_SIGNED = (1, 200, 256, 300, 520)
_ORIGIN = "conclave.test/witness"
_COLUMNS = {
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


def _edit_sequence(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.witness_entries)
    row[3] = draw.choice([each for each in (None, 0, 1, 2, 7, 1_000, -1) if each != row[3]])


def _swap_sequences(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.deliberations)[0]
    rows = [row for row in log.witness_entries if row[2] == own]
    pairs = [(one, other) for one in rows for other in rows if one[3] < other[3]]
    if pairs:
        one, other = draw.choice(pairs)
        one[3], other[3] = other[3], one[3]
    else:
        rows[0][3] += 1


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


def _at(table: str, column: str) -> int:
    return _COLUMNS[table].split(", ").index(column)


_SPECIFIED = (
    "question text",
    "question context",
    "question answer kind",
    "question answer options 0",
    "question answer options 2",
    "rule kind",
    "rule fraction",
    "protocol wave_size",
    "quorum min_answered_fraction",
    "limits agent_timeout_s",
    "limits deadline_s",
    "limits max_attempts",
    "limits max_total_tokens",
    "limits max_cost_usd",
    "sampling temperature",
    "sampling max_output_tokens",
    "metadata origin",
    "seed",
)
_ROSTER = ("name", "agents 0 id", "agents 1 persona text", "agents 2 model")
_CAME_TO = (
    "roll_call answered",
    "roll_call timed_out",
    "rounds 0 number",
    "rounds 0 tally yes",
    "rounds 0 agents 0",
    "outcome status",
    "outcome rule",
    "outcome decision",
    "outcome tally yes",
    "outcome tally no",
    "outcome margin",
    "outcome dissent percentage",
    "outcome dissent positions 0 answer",
    "outcome dissent positions 0 agents 0",
    "outcome dissent positions 0 reasons 0",
    "outcome blind_tally yes",
    "outcome effective_votes",
    "outcome rules_agreeing 0",
    "outcome votes_to_flip",
    "failures 0 agent_id",
    "failures 0 state",
    "failures 0 attempts",
    "failures 0 failure kind",
    "failures 0 failure message",
    "failures 0 duration_seconds",
    "usage calls",
    "usage input_tokens",
    "usage cost_usd",
    "models 0",
    "reason",
)
_STANDING = (
    "status",
    "created_at",
    "started_at",
    "finished_at",
    "orchestrator",
    "simulated",
    "result",
    "first_index",
    "last_index",
    "tree_size",
    "root_hash",
)
_NEEDED = ("status", "created_at", "orchestrator")
_RECORDED = (
    "round_number",
    "agent_id",
    "state",
    "attempts",
    "started_at",
    "finished_at",
    "content",
    "answer",
    "confidence",
    "reasoning",
    "failure_kind",
    "failure_message",
    "model_asked",
    "model",
    "calls",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "truncated",
    "duration_seconds",
    "leaf_index",
    "salts",
)
_WORDS = (
    "queued",
    "running",
    "completed",
    "inquorate",
    "failed",
    "answered",
    "abstained",
    "throttled",
    "forged",
    '"no"',
)


def _other(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + draw.choice((1, -1, 1_000))
    if isinstance(value, bytes):
        return _flipped(value, draw)
    if isinstance(value, datetime):
        return value + timedelta(seconds=1)
    if isinstance(value, str) and value.endswith("Z") and value[:4].isdecimal():
        return value.replace(":00:", ":01:")
    return draw.choice([each for each in _WORDS if each != value])


def _opposite(value: Any) -> Any:
    """The other truth value. SQLite has numbers for them, of which every one but 0 reads as true."""
    return type(value)(not value)


def _forge_within(rows: Sequence[Row], column: int, paths: Sequence[str], draw: random.Random) -> None:
    """Change one value within a document, in a row that has such a value."""
    while True:
        steps: list[Any] = [int(step) if step.isdecimal() else step for step in draw.choice(paths).split()]
        row = draw.choice(rows)
        document = inner = json.loads(row[column] or "null")
        try:
            for step in steps[:-1]:
                inner = inner[step]
            value = inner[steps[-1]]
        except (LookupError, TypeError):
            continue
        if value is not None:
            break
    inner[steps[-1]] = _other(value, draw)
    row[column] = json.dumps(document)


def _forge_specification(log: Stored, draw: random.Random) -> None:
    _forge_within(log.specifications, _at("specifications", "specification"), _SPECIFIED, draw)


def _forge_roster(log: Stored, draw: random.Random) -> None:
    _forge_within(log.specifications, _at("specifications", "roster"), _ROSTER, draw)


def _forge_result(log: Stored, draw: random.Random) -> None:
    _forge_within(log.deliberations, _at("deliberations", "result"), _CAME_TO, draw)


def _forge_standing(log: Stored, draw: random.Random) -> None:
    name = draw.choice(_STANDING)
    column = _at("deliberations", name)
    row = draw.choice([each for each in log.deliberations if each[column] is not None])
    if name == "simulated":
        row[column] = _opposite(row[column])
    elif name in _NEEDED:
        row[column] = _other(row[column], draw)
    else:
        row[column] = draw.choice((None, _other(row[column], draw)))


def _forge_key_name(log: Stored, draw: random.Random) -> None:
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.deliberations if each[0] not in erased])
    row[_at("deliberations", "key_name")] = "yours"


def _forge_salts(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.specifications)
    salts = row[_at("specifications", "salts")]
    # Of the question, which everyone has: a salt of no text belongs to nothing.
    row[_at("specifications", "salts")] = (
        bytes(16) if salts is None else draw.choice((None, _flipped(salts[:16], draw) + salts[16:]))
    )


def _forge_record(log: Stored, draw: random.Random) -> None:
    column = _at("agent_records", draw.choice(_RECORDED))
    row = draw.choice([each for each in log.agent_records if each[column] is not None])
    if column != _at("agent_records", "salts"):
        is_flag = column == _at("agent_records", "truncated")
        row[column] = _opposite(row[column]) if is_flag else _other(row[column], draw)
        return
    # Of the content or else of the message: a salt of no text belongs to nothing.
    start = 32 if row[_at("agent_records", "content")] is None else 0
    salts = row[column]
    row[column] = salts[:start] + _flipped(salts[start : start + 16], draw) + salts[start + 16 :]


def _delete_record(log: Stored, draw: random.Random) -> None:
    del log.agent_records[draw.randrange(len(log.agent_records))]


def _swap_records(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.agent_records)[0]
    one, other = draw.sample([row for row in log.agent_records if row[0] == own], 2)
    place = _at("agent_records", "ordinal")
    one[place], other[place] = other[place], one[place]


def _reveal_erased(log: Stored, draw: random.Random) -> None:
    """Put words into a mouth of which the log says that they are gone."""
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.agent_records if each[0] in erased])
    row[_at("agent_records", draw.choice(("content", "reasoning")))] = "forged"


def _hide_as_erased(log: Stored, draw: random.Random) -> None:
    """Take the salts away, as if the texts had been erased, and put others in their place."""
    erased = {row[0] for row in log.erasures}
    row = draw.choice([each for each in log.agent_records if each[0] not in erased])
    row[_at("agent_records", "salts")], row[_at("agent_records", "content")] = None, "forged"


def _delete_deliberation(log: Stored, draw: random.Random) -> None:
    own = draw.choice(log.deliberations)[0]
    for table in ("deliberations", "specifications", "agent_records"):
        rows = getattr(log, table)
        rows[:] = [row for row in rows if row[0] != own]


def _delete_specification(log: Stored, draw: random.Random) -> None:
    del log.specifications[draw.randrange(len(log.specifications))]


def _insert_deliberation(log: Stored, draw: random.Random) -> None:
    row = draw.choice(log.deliberations)
    specification = next(each for each in log.specifications if each[0] == row[0])
    log.deliberations.append(["forged", 99, *row[2:]])
    log.specifications.append(["forged", *specification[1:]])


def _swap_positions(log: Stored, draw: random.Random) -> None:
    one, other = draw.sample(log.deliberations, 2)
    one[1], other[1] = other[1], one[1]


Mutation = Callable[[Stored, random.Random], None]

# A deliberation itself differs, alone and in lists.
_SHOWN: Sequence[Mutation] = (
    _forge_specification,
    _forge_roster,
    _forge_result,
    _forge_standing,
    _forge_key_name,
    _forge_salts,
)
# What it is made of differs, so it is no longer shown; a list that was compared before shows what was recorded.
_BENEATH: Sequence[Mutation] = (_forge_record, _delete_record, _swap_records, _reveal_erased, _hide_as_erased)

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
    _edit_sequence,
    _swap_sequences,
    *_SHOWN,
    *_BENEATH,
    _delete_deliberation,
    _delete_specification,
    _insert_deliberation,
    _swap_positions,
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
    assert (report.deliberations, report.unsigned) == (5, ground.sound.size - _SIGNED[-1])
    assert await ground.shown() == (True, True)
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


async def test_nothing_is_shown_that_differs_from_what_was_recorded(
    ground: Ground, request: pytest.FixtureRequest, sized: Callable[[int, int], int]
) -> None:
    count = sized(60, 2_000) if request.node.callspec.params["ground"] == "sqlite" else sized(30, 200)
    shown = []
    for number in range(count):
        mutate = (*_SHOWN, *_BENEATH)[number % len((*_SHOWN, *_BENEATH))]
        changed = deepcopy(ground.sound)
        mutate(changed, random.Random(f"{_SEED} {number}"))
        assert changed != ground.sound
        ground.owner.write(changed)
        alone, listed = await ground.shown()
        if alone or (listed and mutate in _SHOWN):
            shown.append(f"{number} {mutate.__name__}: {alone} {listed}")
    assert shown == []
    ground.owner.write(ground.sound)
    assert await ground.shown() == (True, True)


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
        try:
            await ground.audit(log_alone=True)
        except VerificationRefusedError as error:
            # A fork may hit the very place where an entry says whose it is, which is found without any anchor.
            assert "filed under another deliberation" in str(error)  # noqa: PT017 - most of them are not refused here
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
