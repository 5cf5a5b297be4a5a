"""Deliberations in the witness log: their entries, the texts that those commit to, and how the texts are erased."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from itertools import accumulate
from pathlib import Path

import pytest

from application.ports.deliberation_repository import Commit, RememberedKey
from application.ports.idempotency import IdempotencyKey
from domain.errors.deliberation import DeliberationNotFoundError, IllegalTransitionError
from domain.witness.entry import commitment
from domain.witness.happenings import event_count
from tests.deliberation_specimens import committing, ended, intent, record
from tests.integration.contracts.witness_stores import WITNESSED, Store, fact, opened_store, require_whole

_STRANGE_IDS = ["", "unknown", "\x00", "a\x00b", "\ud800", "x" * 100_000, "'; DROP TABLE erasures; --"]
# Parts of what a specimen says: its question, its context, a persona, an agent's reasons and its failure.
_WORDS = ("Innenstadt", "Zeile eins", "zögert", "because of", "no answer within", "what it said")


@pytest.fixture(params=WITNESSED)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each adapter in turn, empty."""
    async with opened_store(request, tmp_path) as empty:
        yield empty


async def test_entries_of_deliberations_and_others_are_one_log(store: Store) -> None:
    log = store.writer.log
    await log.append([fact(0)])
    running = await store.writer.add()
    await log.append([fact(1)])
    over = await store.writer.end(running)
    entries = await require_whole(log)
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


async def test_an_entry_comes_with_the_number_of_the_last_event_that_its_deliberation_has_made(store: Store) -> None:
    log = store.writer.log
    await log.append([fact(1)])
    running = await store.writer.add()
    await store.writer.end(running)
    await log.append([fact(2)])
    own = await log.entries_of(running.id)
    assert [entry.sequence for entry in own] == list(accumulate(event_count(json.loads(entry.entry)) for entry in own))
    others = [entry for entry in await log.entries(0, 100) if entry.deliberation_id is None]
    assert [entry.sequence for entry in others] == [None, None]


async def test_entries_that_belong_to_no_deliberation_are_read_apart(store: Store) -> None:
    log = store.writer.log
    own = [*await log.append([fact(0), fact(1)])]
    over = await store.writer.end(await store.writer.add())
    own += await log.append([fact(2)])
    await store.writer.erase(over.id)
    own += await log.append([fact(3)])
    assert list(await log.system_entries(-1, 100)) == own
    assert list(await log.system_entries(-1, 2)) == own[:2]
    assert list(await log.system_entries(own[1].index, 100)) == own[2:]
    assert list(await log.system_entries(own[3].index, 100)) == []


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
    await asyncio.gather(writer.end(running), writer.end(other), writer.log.append([fact(0)]))
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


async def test_an_erasure_removes_every_text_and_no_entry(store: Store) -> None:
    writer = store.writer
    over, other = await writer.end(await writer.add()), await writer.end(await writer.add())
    before = list(await require_whole(writer.log))
    theirs = await writer.log.disclosures_of(other.id)
    assert [word for word in _WORDS if word not in await writer.everything_read(over.id)] == []
    entry = await writer.erase(over.id)
    assert await require_whole(writer.log) == [*before, entry]
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
    before = await require_whole(store.writer.log)
    with pytest.raises(IllegalTransitionError) as refusal:
        await store.writer.erase(running.id)
    assert (refusal.value.present, refusal.value.wanted) == ("running", "erased")
    assert await require_whole(store.writer.log) == before
    assert await store.writer.repository.get(running.id) == running
    assert len(await store.writer.log.disclosures_of(running.id)) == 5


async def test_what_is_erased_cannot_be_erased_again(store: Store) -> None:
    over = await store.writer.end(await store.writer.add())
    await store.writer.erase(over.id)
    before = await require_whole(store.writer.log)
    another = await store.open_another()
    for writer in (store.writer, another):
        with pytest.raises(IllegalTransitionError) as refusal:
            await writer.erase(over.id)
        assert refusal.value.present == "erased"
    assert await require_whole(store.writer.log) == before


async def test_of_two_that_erase_at_once_one_does(store: Store) -> None:
    over = await store.writer.end(await store.writer.add())
    another = await store.open_another()
    results = await asyncio.gather(store.writer.erase(over.id), another.erase(over.id), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["IllegalTransitionError", "LoggedEntry"]
    entries = await require_whole(store.writer.log)
    assert sum(b'"type":"erased"' in entry.entry for entry in entries) == 1


async def test_what_nobody_knows_cannot_be_erased(store: Store) -> None:
    await store.writer.log.append([fact(0)])
    for strange in ("", "unknown", "\x00", "x" * 10_000):
        with pytest.raises(DeliberationNotFoundError):
            await store.writer.erase(strange)
    assert len(await require_whole(store.writer.log)) == 1
