"""What is stored of a deliberation reads back exactly, held against every adapter: memory, a SQLite file and a real Postgres."""

import asyncio
import json
from datetime import datetime, timedelta, timezone

import pytest

from application.ports.deliberation_repository import Commit
from domain.errors.deliberation import DeliberationExistsError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot import Answer
from domain.witness.entry import accepted, commitment, round_started
from domain.witness.merkle import leaf_hash
from tests.deliberation_specimens import NOON, committing, ended, failed, intent, record, revised
from tests.integration.contracts.store import Store
from tests.integration.contracts.strange_ids import STRANGE_IDS

_ANSWERS: list[Answer] = [
    "yes",
    "",
    "1",
    "null",
    ("no", "yes"),
    (),
    0.1 + 0.2,
    -0.0,
    1e308,
    5e-324,
    3,
    None,
    'a "quoted" \\ 日本 🚗\u2028',
]


async def test_what_was_added_reads_back_exactly(store: Store) -> None:
    added = await store.add(key_name="ключ")
    assert await store.repository.get(added.id) == added


async def test_the_options_and_the_roster_keep_their_order(store: Store) -> None:
    added = await store.add(agents=72)
    found = await store.repository.get(added.id)
    assert found is not None
    assert list(found.specification.metadata.items()) == list(added.specification.metadata.items())
    assert [agent.id for agent in found.specification.roster.agents] == [f"archon-{number}" for number in range(72)]


async def test_an_id_that_nobody_gave_out_finds_nothing(store: Store) -> None:
    await store.add()
    for strange in STRANGE_IDS:
        assert await store.repository.get(strange) is None
        assert list(await store.repository.records(strange)) == []
        assert list(await store.repository.events(strange, after=0, limit=10)) == []


async def test_the_same_deliberation_is_not_added_twice(store: Store) -> None:
    added = await store.add()
    with pytest.raises(DeliberationExistsError):
        await store.repository.add(added, accepted(added))
    assert await store.sequences(added.id) == [1]


async def test_an_ended_deliberation_reads_back_exactly_whatever_order_its_records_came_in(store: Store) -> None:
    running = await store.start()
    invalid = failed(2, state=AgentState.INVALID)
    for each in (invalid, record(1, answer="no"), record(0)):
        await store.repository.append(committing(running.id, records=[each]))
    over = ended(running, [record(0), record(1, answer="no"), invalid])
    await store.repository.append(committing(running.id, deliberation=over))
    found = await store.repository.get(running.id)
    assert found == over
    assert found is not None
    assert found.outcome is not None
    assert over.outcome is not None
    assert list(found.outcome.tally.items()) == list(over.outcome.tally.items())
    assert found.failures == (invalid,)


async def test_several_rounds_read_back_exactly(store: Store) -> None:
    running = await store.start()
    rounds = [
        [record(0), failed(1), record(2, answer=None)],
        [record(2, round_number=1, answer="no"), record(0, round_number=1), failed(1, round_number=1)],
    ]
    for records in rounds:
        await store.repository.append(committing(running.id, records=records))
    over = revised(running, rounds)
    await store.repository.append(committing(running.id, deliberation=over))
    assert await store.repository.get(running.id) == over


async def test_records_and_the_end_may_be_stored_in_one_step(store: Store) -> None:
    running = await store.start()
    records = [failed(0), failed(1), failed(2)]
    over = revised(running, [records])
    await store.repository.append(committing(running.id, (), records, over))
    assert await store.repository.get(running.id) == over


async def test_a_deliberation_at_work_shows_how_it_stands(store: Store) -> None:
    running = await store.start()
    await store.repository.append(committing(running.id, records=[record(2)]))
    await store.repository.append(committing(running.id, records=[failed(0)]))
    found = await store.repository.get(running.id)
    assert found is not None
    assert found.status is DeliberationStatus.RUNNING
    assert found.roll_call.as_counts() == {"asked": 2, "answered": 1, "timed_out": 1} | {
        state: 0 for state in AgentState if state not in {AgentState.ANSWERED, AgentState.TIMED_OUT}
    }
    assert found.rounds[0].records == (record(2), failed(0))
    assert found.failures == (failed(0),)
    assert found.usage == record(2).usage + Usage(calls=2)
    assert found.models == ("small",)
    assert found.outcome is None


async def test_records_come_in_the_order_of_their_commit_with_the_entries_that_witness_them(store: Store) -> None:
    running = await store.start()
    records = [record(2), failed(1), record(0, answer=None, content="日本 🚗")]
    for each in records:
        await store.repository.append(committing(running.id, records=[each]))
    stored = await store.repository.records(running.id)
    assert [item.record for item in stored] == records
    assert [item.witnessed.leaf_hash for item in stored] == [leaf_hash(item.witnessed.entry) for item in stored]
    assert [item.salts for item in stored] == [bytes(range(64))] * 3
    assert [json.loads(item.witnessed.entry)["content"] for item in stored] == [
        commitment(bytes(range(16)), each.content) for each in records
    ]


async def test_records_of_one_round_can_be_read_alone(store: Store) -> None:
    running = await store.start()
    later = [record(1, round_number=1), record(0, round_number=1)]
    await store.repository.append(committing(running.id, records=[record(0), record(1)]))
    await store.repository.append(committing(running.id, records=later))
    assert [item.record for item in await store.repository.records(running.id, round_number=1)] == later
    assert list(await store.repository.records(running.id, round_number=2)) == []


async def test_records_after_a_leaf_can_be_read_alone(store: Store) -> None:
    running = await store.start()
    later = [record(1, round_number=1), record(0, round_number=1)]
    await store.repository.append(committing(running.id, records=[record(0), record(1)]))
    await store.repository.append(committing(running.id, records=later))
    leaves = [item.witnessed.index for item in await store.repository.records(running.id)]
    after = leaves[2]
    assert [item.record for item in await store.repository.records(running.id, after=leaves[1])] == later
    assert [item.record for item in await store.repository.records(running.id, after=after)] == later[1:]
    assert list(await store.repository.records(running.id, round_number=0, after=after)) == []
    assert list(await store.repository.records(running.id, after=leaves[-1])) == []


async def test_every_answer_reads_back_as_it_was_given(store: Store) -> None:
    running = await store.start(agents=72)
    given = [record(number, answer=answer) for number, answer in enumerate(_ANSWERS)]
    await store.repository.append(committing(running.id, records=given, answers=AnswerFormat(AnswerKind.TEXT)))
    stored = [item.record for item in await store.repository.records(running.id)]
    assert stored == given
    assert [repr(each.answer) for each in stored] == [repr(answer) for answer in _ANSWERS]


async def test_a_content_of_any_size_and_script_reads_back_exactly(store: Store) -> None:
    running = await store.start()
    huge = "".join(map(chr, (*range(1, 0xD800), *range(0xE000, 0x11000), 0x1F697, 0x10FFFF))) * 4
    each = record(0, content=huge)
    await store.repository.append(committing(running.id, records=[each]))
    (stored,) = await store.repository.records(running.id)
    assert stored.record == each


async def test_a_moment_in_another_zone_is_stored_as_the_same_moment(store: Store) -> None:
    running = await store.start()
    elsewhere = datetime(2026, 11, 21, 23, 59, 59, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
    beginning = round_started(running.id, 1, [], at=elsewhere)
    await store.repository.append(Commit(running.id, [beginning]))
    event = (await store.repository.events(running.id, after=2, limit=1))[0]
    assert event.at == elsewhere
    assert event.at.utcoffset() in {timedelta(0), elsewhere.utcoffset()}


async def test_changing_what_was_handed_over_changes_nothing_stored(store: Store) -> None:
    running = await store.start()
    beginning = round_started(running.id, 1, ["archon-1"], at=NOON)
    await store.repository.append(Commit(running.id, [beginning]))
    beginning.document["round"] = 9
    beginning.document["agents"].append("archon-2")
    (event,) = await store.repository.events(running.id, after=2, limit=1)
    assert event.data == {"round": 1, "agents": ["archon-1"]}


async def test_a_store_that_works_passes_its_check(store: Store) -> None:
    await store.repository.check()


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
async def test_closing_lets_what_was_begun_end_and_refuses_what_comes_later(store: Store) -> None:
    running = await store.start()
    appends = [
        asyncio.create_task(store.repository.append(committing(running.id, [intent(number)]))) for number in range(5)
    ]
    await asyncio.sleep(0)
    await store.repository.close()
    assert all(append.done() for append in appends)
    with pytest.raises(DependencyUnavailableError):
        await store.repository.append(committing(running.id, [intent(6)]))
    assert await store.sequences(running.id) == list(range(1, 8))
