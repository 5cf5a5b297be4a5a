"""What the witness log promises, held against every adapter: memory, a SQLite file, and Postgres as owner and as application."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from application.ports.witness_log import Disclosure, WitnessLog
from domain.errors.deliberation import RecordExistsError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.witness import EntryRecordedError
from domain.models.deliberation import Deliberation
from domain.witness.entry import time_text
from domain.witness.merkle import EMPTY_ROOT, root_hash
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from tests.deliberation_specimens import NOON, committing, intent, record
from tests.integration.contracts.witness_stores import WITNESSED, Store, Writer, fact, opened_store, require_whole

_LEAVES = 600


@pytest.fixture(params=WITNESSED)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each adapter in turn, empty."""
    async with opened_store(request, tmp_path) as empty:
        yield empty


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
    first = await log.append([fact(0)])
    more = await log.append([fact(1), fact(2, text="日本 🚗"), fact(3)])
    assert [entry.index for entry in (*first, *more)] == [0, 1, 2, 3]
    assert await require_whole(log) == [*first, *more]
    assert [json.loads(entry.entry)["number"] for entry in (*first, *more)] == [0, 1, 2, 3]


async def test_nothing_appended_changes_nothing(store: Store) -> None:
    log = store.writer.log
    await log.append([fact(0)])
    assert list(await log.append([])) == []
    assert len(await require_whole(log)) == 1


async def test_the_head_is_the_root_of_every_size_on_the_way(store: Store) -> None:
    log = store.writer.log
    leaves: list[bytes] = []
    for number in range(20):
        leaves += [entry.leaf_hash for entry in await log.append([fact(number)])]
        assert (await log.head()).root_hash == root_hash(leaves)


async def test_nodes_of_a_tile_level_are_the_roots_of_its_perfect_subtrees(store: Store) -> None:
    log = store.writer.log
    sizes = [0, 1, 255, 257, 511, _LEAVES]
    for start, end in pairwise(sizes):
        await log.append([fact(number) for number in range(start, end)])
        assert len(await log.nodes(1, 0, 10)) == end // 256
    entries = await require_whole(log)
    leaves = [entry.leaf_hash for entry in entries]
    nodes = [root_hash(leaves[:256]), root_hash(leaves[256:512])]
    assert list(await log.nodes(1, 0, 2)) == nodes
    assert list(await log.nodes(1, 1, 10)) == nodes[1:]
    assert list(await log.nodes(1, -5, 1)) == nodes[:1]
    assert list(await log.nodes(1, 2, 2**70)) == []
    assert list(await log.nodes(2, 0, 10)) == []


async def test_ranges_are_half_open_and_end_where_the_log_does(store: Store) -> None:
    log = store.writer.log
    entries = list(await log.append([fact(number) for number in range(10)]))
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
    entries = await log.append([fact(number) for number in range(_LEAVES)])
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
        await log.append([fact(number)])
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


@pytest.mark.parametrize(
    "bad", [{"text": "x" * 60_000}, {"value": float("nan")}, {"text": "\ud800"}], ids=["too long", "nan", "surrogate"]
)
async def test_what_cannot_be_an_entry_is_refused_with_all_that_came_with_it(
    store: Store, bad: dict[str, object]
) -> None:
    log = store.writer.log
    with pytest.raises(ValueError):
        await log.append([fact(0), fact(1, **bad), fact(2)])
    assert len(await require_whole(log)) == 0


async def test_a_commit_that_is_refused_leaves_no_gap(store: Store) -> None:
    running = await store.writer.add()
    await store.writer.repository.append(committing(running.id, records=[record(0)]))
    results = await asyncio.gather(
        store.writer.repository.append(committing(running.id, [intent(1)])),
        store.writer.repository.append(committing(running.id, [intent(2)], [record(0)])),
        store.writer.log.append([fact(0)]),
        store.writer.repository.append(committing(running.id, [intent(3)])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), RecordExistsError, list, type(None)]
    assert len(await require_whole(store.writer.log)) == 6


async def test_what_one_appended_another_reads_at_once(store: Store) -> None:
    another = await store.open_another()
    for number in range(5):
        appended = await store.writer.log.append([fact(number)])
        assert list(await another.log.entries(number, number + 1)) == list(appended)
        assert await another.log.head() == await store.writer.log.head()


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


async def test_writers_that_race_make_one_log_without_gap_or_fork(store: Store) -> None:
    another = await store.open_another()
    writers = (store.writer, another)
    running = [await writer.add() for writer in writers for _ in range(2)]
    at_start = len(await require_whole(store.writer.log))

    async def commit_all(writer: Writer, own: Deliberation) -> None:
        for number in range(5):
            await writer.repository.append(committing(own.id, [intent(number)]))
        await writer.end(own)

    appends = [
        writer.log.append([fact(number, writer=place), fact(number + 100, writer=place)])
        for number in range(20)
        for place, writer in enumerate(writers)
    ]
    # Each deliberation is worked on by the writer that did not begin it.
    commits = [commit_all(writers[1 - place // 2], own) for place, own in enumerate(running)]
    checkpoints = [writer.log.add_checkpoint(at_start, _note(at_start)) for writer in writers]
    appended = await asyncio.gather(*appends, *commits, *checkpoints)

    entries = await require_whole(store.writer.log)
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
