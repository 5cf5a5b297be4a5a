"""What the witness log promises, held against every adapter: memory, a SQLite file, and Postgres as owner and as application."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, make_url, select

from application.ports.deliberation_repository import Commit, IdempotencyKey, RememberedKey
from application.ports.witness_log import Disclosure, Erasure, LoggedEntry, WitnessLog
from domain.errors.deliberation import DeliberationNotFoundError, IllegalTransitionError, RecordExistsError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import EntryRecordedError
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted, commitment, time_text
from domain.witness.happenings import event_count
from domain.witness.merkle import EMPTY_ROOT, leaf_hash, root_hash
from infrastructure.persistence import tables
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import (
    NOON,
    committing,
    deliberation,
    ended,
    failed,
    intent,
    opening,
    record,
    started,
)
from tests.servers.postgres import PostgresServer

_SALT = bytes(range(16))
_STRANGE_IDS = ["", "unknown", "\x00", "a\x00b", "\ud800", "x" * 100_000, "'; DROP TABLE erasures; --"]
# Parts of what a specimen says: its question, its context, a persona, an agent's reasons and its failure.
_WORDS = ("Innenstadt", "Zeile eins", "zögert", "because of", "no answer within", "what it said")
_LEAVES = 600


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


@pytest.fixture(scope="module")
def migrated_postgres(postgres_server: PostgresServer) -> Iterator[Template]:
    """The template; what is recorded cannot be emptied, so no test uses it itself."""
    if not postgres_server.running:
        postgres_server.start()
    name = "witness_contract"
    postgres_server.create_database(name)
    owner = make_url(postgres_server.url(name))
    application = owner.set(username="witness_contract_application", password="a secret of tests")
    address = application.render_as_string(hide_password=False)
    upgrade(postgres_server.url(name), application_url=address)
    yield Template(name, address)
    postgres_server.drop_database(name)
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(str(application.username))))


@pytest.fixture
def empty_postgres(migrated_postgres: Template, postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty copy."""
    postgres_server.create_database("witness_contract_copy", template=migrated_postgres.name)
    yield "witness_contract_copy"
    postgres_server.drop_database("witness_contract_copy")


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/conclave.db"
        upgrade(url)
        return url
    copy = request.getfixturevalue("empty_postgres")
    if request.param == "postgres":
        owner: str = request.getfixturevalue("postgres_server").url(copy)
        return owner
    template: Template = request.getfixturevalue("migrated_postgres")
    return make_url(template.application).set(database=copy).render_as_string(hide_password=False)


@pytest.fixture(params=["memory", "sqlite", "postgres", "postgres as the application"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each adapter in turn, empty."""
    if request.param == "memory":
        kept = InMemoryRepository()
        only = Writer(kept.log, kept)

        async def same() -> Writer:
            return only

        async def no_rows() -> str:
            return ""

        yield Store(only, same, no_rows)
        return
    url = _url(request, tmp_path)
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


def _fact(number: int, **fields: object) -> Mapping[str, Any]:
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


async def _require_whole(log: WitnessLog) -> Sequence[LoggedEntry]:
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


async def test_an_empty_log_has_the_root_of_nothing(store: Store) -> None:
    log = store.writer.log
    head = await log.head()
    assert (head.tree_size, head.root_hash) == (0, EMPTY_ROOT)
    assert list(await log.entries(0, 10)) == []
    assert list(await log.leaf_hashes(0, 10)) == []
    assert list(await log.nodes(1, 0, 10)) == []
    assert await log.latest_checkpoint() is None
    assert list(await log.checkpoints(-1, 10)) == []


async def test_what_is_appended_stands_at_the_next_indexes_in_the_order_given(store: Store) -> None:
    log = store.writer.log
    first = await log.append([_fact(0)])
    more = await log.append([_fact(1), _fact(2, text="日本 🚗"), _fact(3)])
    assert [entry.index for entry in (*first, *more)] == [0, 1, 2, 3]
    assert await _require_whole(log) == [*first, *more]
    assert [json.loads(entry.entry)["number"] for entry in (*first, *more)] == [0, 1, 2, 3]


async def test_nothing_appended_changes_nothing(store: Store) -> None:
    log = store.writer.log
    await log.append([_fact(0)])
    assert list(await log.append([])) == []
    assert len(await _require_whole(log)) == 1


async def test_entries_of_deliberations_and_others_are_one_log(store: Store) -> None:
    log = store.writer.log
    await log.append([_fact(0)])
    running = await store.writer.add()
    await log.append([_fact(1)])
    over = await store.writer.end(running)
    entries = await _require_whole(log)
    types = [json.loads(entry.entry)["type"] for entry in entries]
    assert types == [
        "test.fact",
        "deliberation.accepted",
        "round.started",
        "test.fact",
        "agent.ended",
        "agent.ended",
        "deliberation.ended",
    ]
    assert await log.entries_of(over.id) == [entries[index] for index in (1, 2, 4, 5, 6)]


async def test_the_head_is_the_root_of_every_size_on_the_way(store: Store) -> None:
    log = store.writer.log
    leaves: list[bytes] = []
    for number in range(20):
        leaves += [entry.leaf_hash for entry in await log.append([_fact(number)])]
        assert (await log.head()).root_hash == root_hash(leaves)


async def test_nodes_of_a_tile_level_are_the_roots_of_its_perfect_subtrees(store: Store) -> None:
    log = store.writer.log
    sizes = [0, 1, 255, 257, 511, _LEAVES]
    for start, end in pairwise(sizes):
        await log.append([_fact(number) for number in range(start, end)])
        assert len(await log.nodes(1, 0, 10)) == end // 256
    entries = await _require_whole(log)
    leaves = [entry.leaf_hash for entry in entries]
    nodes = [root_hash(leaves[:256]), root_hash(leaves[256:512])]
    assert list(await log.nodes(1, 0, 2)) == nodes
    assert list(await log.nodes(1, 1, 10)) == nodes[1:]
    assert list(await log.nodes(1, -5, 1)) == nodes[:1]
    assert list(await log.nodes(1, 2, 2**70)) == []
    assert list(await log.nodes(2, 0, 10)) == []


async def test_ranges_are_half_open_and_end_where_the_log_does(store: Store) -> None:
    log = store.writer.log
    entries = list(await log.append([_fact(number) for number in range(10)]))
    for start, end in (
        (2, 5),
        (0, 10),
        (3, 3),
        (5, 2),
        (-5, 2),
        (-5, -1),
        (8, 11),
        (10, 20),
        (0, 2**70),
        (2**70, 2**71),
    ):
        expected = entries[max(start, 0) : max(end, 0)]
        assert list(await log.entries(start, end)) == expected
        assert list(await log.leaf_hashes(start, end)) == [entry.leaf_hash for entry in expected]


async def test_several_ranges_are_read_as_each_would_be_alone(store: Store) -> None:
    log = store.writer.log
    entries = await log.append([_fact(number) for number in range(_LEAVES)])
    wanted = [(0, 512, 530), (1, 0, 2), (0, 590, 1_000), (1, 1, 1), (2, 0, 1), (0, -3, 1)]
    leaves = [entry.leaf_hash for entry in entries]
    nodes = [root_hash(leaves[:256]), root_hash(leaves[256:512])]
    expected = [leaves[512:530], nodes, leaves[590:], [], [], leaves[:1]]
    head, read = await log.spans(wanted)
    assert [list(found) for found in read] == expected
    assert head == await log.head()
    assert await log.spans([]) == (head, [])


async def test_what_a_head_counts_is_in_the_ranges_that_are_read_with_it(store: Store) -> None:
    another = await store.open_another()
    writing = asyncio.create_task(_append_one_by_one(another.log, 60))
    seen = set()
    while not writing.done():
        head, (leaves,) = await store.writer.log.spans([(0, 0, 1_000)])
        assert len(leaves) >= head.tree_size
        assert root_hash(leaves[: head.tree_size]) == head.root_hash
        seen.add(head.tree_size)
        # Memory answers without ever giving way.
        await asyncio.sleep(0)
    await writing
    assert len(seen) > 1


async def _append_one_by_one(log: WitnessLog, count: int) -> None:
    for number in range(count):
        await log.append([_fact(number)])
        await asyncio.sleep(0)


async def test_ranges_of_a_table_that_is_gone_cannot_be_read(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/conclave.db"
    upgrade(url)
    database = await open_database(url)
    log = SqlWitnessLog(database)
    assert await log.spans([(1, 0, 1)]) == (await log.head(), [[]])
    with closing(sqlite3.connect(tmp_path / "conclave.db")) as connection:
        connection.execute("DROP TABLE witness_nodes")
    with pytest.raises(DependencyUnavailableError, match="tables are missing"):
        await log.spans([(1, 0, 1)])
    await database.close()


async def test_an_entry_comes_with_the_number_of_the_last_event_that_its_deliberation_has_made(store: Store) -> None:
    log = store.writer.log
    await log.append([_fact(1)])
    running = await store.writer.add()
    await store.writer.end(running)
    await log.append([_fact(2)])
    own = await log.entries_of(running.id)
    assert [entry.sequence for entry in own] == list(accumulate(event_count(json.loads(entry.entry)) for entry in own))
    others = [entry for entry in await log.entries(0, 100) if entry.deliberation_id is None]
    assert [entry.sequence for entry in others] == [None, None]


async def test_entries_that_belong_to_no_deliberation_are_read_apart(store: Store) -> None:
    log = store.writer.log
    own = [*await log.append([_fact(0), _fact(1)])]
    over = await store.writer.end(await store.writer.add())
    own += await log.append([_fact(2)])
    await store.writer.erase(over.id)
    own += await log.append([_fact(3)])
    assert list(await log.system_entries(-1, 100)) == own
    assert list(await log.system_entries(-1, 2)) == own[:2]
    assert list(await log.system_entries(own[1].index, 100)) == own[2:]
    assert list(await log.system_entries(own[3].index, 100)) == []


@pytest.mark.parametrize(
    "bad", [{"text": "x" * 60_000}, {"value": float("nan")}, {"text": "\ud800"}], ids=["too long", "nan", "surrogate"]
)
async def test_what_cannot_be_an_entry_is_refused_with_all_that_came_with_it(
    store: Store, bad: dict[str, object]
) -> None:
    log = store.writer.log
    with pytest.raises(ValueError):
        await log.append([_fact(0), _fact(1, **bad), _fact(2)])
    assert len(await _require_whole(log)) == 0


async def test_a_commit_that_is_refused_leaves_no_gap(store: Store) -> None:
    running = await store.writer.add()
    await store.writer.repository.append(committing(running.id, records=[record(0)]))
    results = await asyncio.gather(
        store.writer.repository.append(committing(running.id, [intent(1)])),
        store.writer.repository.append(committing(running.id, [intent(2)], [record(0)])),
        store.writer.log.append([_fact(0)]),
        store.writer.repository.append(committing(running.id, [intent(3)])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), RecordExistsError, list, type(None)]
    assert len(await _require_whole(store.writer.log)) == 6


async def test_what_one_appended_another_reads_at_once(store: Store) -> None:
    another = await store.open_another()
    for number in range(5):
        appended = await store.writer.log.append([_fact(number)])
        assert list(await another.log.entries(number, number + 1)) == list(appended)
        assert await another.log.head() == await store.writer.log.head()


async def test_entries_of_nobody_are_none(store: Store) -> None:
    await store.writer.add()
    for strange in _STRANGE_IDS:
        assert list(await store.writer.log.entries_of(strange)) == []
        assert list(await store.writer.log.disclosures_of(strange)) == []


async def test_every_text_of_a_deliberation_is_disclosed_by_its_commitment_in_the_order_of_the_entries(
    store: Store,
) -> None:
    over = await store.writer.end(await store.writer.add())
    told = await store.writer.log.disclosures_of(over.id)
    for each in told:
        assert commitment(bytes.fromhex(each.salt), each.text) == {"sha256": each.sha256}
    whole = b"\n".join(entry.entry for entry in await store.writer.log.entries_of(over.id)).decode()
    assert all(each.sha256 in whole for each in told)
    texts = [each.text for each in told]
    question = over.specification.question
    personas = [agent.persona.text for agent in over.specification.roster.agents]
    assert texts == [
        question.text,
        question.context,
        *personas,
        "what it said",
        "because of 0 – ☂",
        "no answer within 1.5 s",
    ]


async def test_the_end_of_a_deliberation_names_all_entries_before_it(store: Store) -> None:
    writer = store.writer
    running, other = await writer.add(), await writer.add()
    await asyncio.gather(writer.end(running), writer.end(other), writer.log.append([_fact(0)]))
    for each in (running, other):
        *before, last = await writer.log.entries_of(each.id)
        digest = hashlib.sha256(b"".join(entry.leaf_hash for entry in before)).hexdigest()
        assert json.loads(last.entry)["record_sha256"] == digest


async def test_the_end_of_a_deliberation_names_entries_of_the_same_commit_too(store: Store) -> None:
    running = await store.writer.add()
    over = ended(running, [record(0)])
    whole = committing(running.id, [intent(0)], [record(0)], over)
    await store.writer.repository.append(Commit(running.id, whole.entries, over))
    *before, last = await store.writer.log.entries_of(running.id)
    assert len(before) == 4
    digest = hashlib.sha256(b"".join(entry.leaf_hash for entry in before)).hexdigest()
    assert json.loads(last.entry)["record_sha256"] == digest


def _note(size: int, *, told_apart_by: str = "") -> str:
    """As much of a checkpoint as a store reads: the size that it is kept under."""
    return f"conclave.test/witness\n{size}\n{told_apart_by}\n"


async def test_of_checkpoints_of_one_size_the_first_is_kept(store: Store) -> None:
    log = store.writer.log
    await log.add_checkpoint(7, _note(7, told_apart_by="first"))
    await log.add_checkpoint(7, _note(7, told_apart_by="second"))
    assert await log.latest_checkpoint() == _note(7, told_apart_by="first")
    assert list(await log.checkpoints(-1, 10)) == [_note(7, told_apart_by="first")]


async def test_two_that_sign_one_head_at_once_keep_one_checkpoint(store: Store) -> None:
    another = await store.open_another()
    notes = [_note(3, told_apart_by=str(number)) for number in range(5)]
    await asyncio.gather(*(writer.log.add_checkpoint(3, note) for note in notes for writer in (store.writer, another)))
    (kept,) = await another.log.checkpoints(-1, 10)
    assert await store.writer.log.latest_checkpoint() == kept


async def test_the_latest_checkpoint_is_the_greatest_and_they_are_read_upwards(store: Store) -> None:
    log = store.writer.log
    for size in (5, 0, 300, 9, 256):
        await log.add_checkpoint(size, _note(size))
    assert await log.latest_checkpoint() == _note(300)
    assert list(await log.checkpoints(-1, 10)) == [_note(size) for size in (0, 5, 9, 256, 300)]
    assert list(await log.checkpoints(0, 2)) == [_note(5), _note(9)]
    assert list(await log.checkpoints(9, 10)) == [_note(256), _note(300)]
    assert list(await log.checkpoints(300, 10)) == []


async def test_an_erasure_removes_every_text_and_no_entry(store: Store) -> None:
    writer = store.writer
    over, other = await writer.end(await writer.add()), await writer.end(await writer.add())
    before = list(await _require_whole(writer.log))
    theirs = await writer.log.disclosures_of(other.id)
    assert [word for word in _WORDS if word not in await writer.everything_read(over.id)] == []
    entry = await writer.erase(over.id)
    assert await _require_whole(writer.log) == [*before, entry]
    assert list(await writer.log.entries_of(over.id))[-1] == entry
    assert [each.text for each in await writer.log.disclosures_of(over.id)] == ["they asked us to"]
    assert await writer.log.disclosures_of(other.id) == theirs
    found = await writer.repository.get(over.id)
    assert found.erased
    assert (found.outcome.decision, found.roll_call) == (over.outcome.decision if over.outcome else "", over.roll_call)
    stored = await writer.repository.records(over.id)
    assert [item.salts for item in stored] == [None, None]
    assert [(item.record.content, item.record.reasoning) for item in stored] == [(None, None)] * 2
    assert [item.record.answer for item in stored] == ["yes", None]
    assert [item.witnessed for item in stored] == [each for each in before if each in [one.witnessed for one in stored]]


async def test_an_erased_deliberation_keeps_its_key_and_not_the_hash_of_what_was_asked(store: Store) -> None:
    keys = [IdempotencyKey("council", name, "a1" * 32) for name in ("erased", "kept")]
    gone, kept = [await store.writer.end(await store.writer.add(key)) for key in keys]
    await store.writer.erase(gone.id)
    remembered = [await store.writer.repository.remembered(key.scope, key.key) for key in keys]
    assert remembered == [RememberedKey(gone.id, ""), RememberedKey(kept.id, "a1" * 32)]


async def test_of_what_was_erased_no_word_is_left_in_any_reading_or_row(store: Store) -> None:
    over = await store.writer.end(await store.writer.add())
    await store.writer.erase(over.id)
    another = await store.open_another()
    left = await store.writer.everything_read(over.id) + await another.everything_read(over.id) + await store.rows()
    assert [word for word in _WORDS if word in left] == []


async def test_an_erasure_waits_for_the_end(store: Store) -> None:
    running = await store.writer.add()
    before = await _require_whole(store.writer.log)
    with pytest.raises(IllegalTransitionError) as refusal:
        await store.writer.erase(running.id)
    assert (refusal.value.present, refusal.value.wanted) == ("running", "erased")
    assert await _require_whole(store.writer.log) == before
    assert await store.writer.repository.get(running.id) == running
    assert len(await store.writer.log.disclosures_of(running.id)) == 5


async def test_a_statement_is_recorded_once_however_often_and_by_whomever_it_is_tried(store: Store) -> None:
    text = Disclosure("ab" * 32, "00" * 16, "why")
    document = {"type": "halt.set", "at": time_text(NOON), "reason": {"sha256": text.sha256}, "key_name": None}
    logs = [store.writer.log, (await store.open_another()).log]
    tried = await asyncio.gather(
        *(log.append([document], disclosures=[text]) for log in logs * 5), return_exceptions=True
    )
    refused = [error for error in tried if isinstance(error, BaseException)]
    assert {type(error) for error in refused} == {EntryRecordedError}
    assert (len(refused), (await store.writer.log.head()).tree_size) == (9, 1)


async def test_what_is_erased_cannot_be_erased_again(store: Store) -> None:
    over = await store.writer.end(await store.writer.add())
    await store.writer.erase(over.id)
    before = await _require_whole(store.writer.log)
    another = await store.open_another()
    for writer in (store.writer, another):
        with pytest.raises(IllegalTransitionError) as refusal:
            await writer.erase(over.id)
        assert refusal.value.present == "erased"
    assert await _require_whole(store.writer.log) == before


async def test_of_two_that_erase_at_once_one_does(store: Store) -> None:
    over = await store.writer.end(await store.writer.add())
    another = await store.open_another()
    results = await asyncio.gather(store.writer.erase(over.id), another.erase(over.id), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["IllegalTransitionError", "LoggedEntry"]
    entries = await _require_whole(store.writer.log)
    assert sum(b'"type":"erased"' in entry.entry for entry in entries) == 1


async def test_what_nobody_knows_cannot_be_erased(store: Store) -> None:
    await store.writer.log.append([_fact(0)])
    for strange in ("", "unknown", "\x00", "x" * 10_000):
        with pytest.raises(DeliberationNotFoundError):
            await store.writer.erase(strange)
    assert len(await _require_whole(store.writer.log)) == 1


async def test_writers_that_race_make_one_log_without_gap_or_fork(store: Store) -> None:
    another = await store.open_another()
    writers = (store.writer, another)
    running = [await writer.add() for writer in writers for _ in range(2)]
    at_start = len(await _require_whole(store.writer.log))

    async def commit_all(writer: Writer, own: Deliberation) -> None:
        for number in range(5):
            await writer.repository.append(committing(own.id, [intent(number)]))
        await writer.end(own)

    appends = [
        writer.log.append([_fact(number, writer=place), _fact(number + 100, writer=place)])
        for number in range(20)
        for place, writer in enumerate(writers)
    ]
    # Each deliberation is worked on by the writer that did not begin it.
    commits = [commit_all(writers[1 - place // 2], own) for place, own in enumerate(running)]
    checkpoints = [writer.log.add_checkpoint(at_start, _note(at_start)) for writer in writers]
    appended = await asyncio.gather(*appends, *commits, *checkpoints)

    entries = await _require_whole(store.writer.log)
    assert await another.log.entries(0, 10_000) == entries
    assert len(entries) == at_start + 2 * len(appends) + len(commits) * (5 + 3)
    for pair in appended[: len(appends)]:
        assert pair is not None
        assert [entries[entry.index] for entry in pair] == list(pair)
        assert pair[1].index == pair[0].index + 1
    for own in running:
        assert [event.sequence for event in await another.repository.events(own.id, after=0, limit=99)] == [
            *range(1, 12)
        ]
        *before, last = await another.log.entries_of(own.id)
        digest = hashlib.sha256(b"".join(entry.leaf_hash for entry in before)).hexdigest()
        assert json.loads(last.entry)["record_sha256"] == digest
