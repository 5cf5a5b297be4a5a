"""What storage promises, held against every adapter: memory, a SQLite file and a real Postgres."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from application.ports.deliberation_repository import (
    Commit,
    IdempotencyKey,
    RememberedKey,
)
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    InvalidSpecificationError,
    RecordExistsError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.idempotency import IdempotencyKeyTakenError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.ballot import Answer
from domain.witness.entry import Entry, accepted, agent_ended, commitment, round_started
from domain.witness.merkle import leaf_hash
from tests.deliberation_specimens import (
    NOON,
    OPTIONS,
    committing,
    deliberation,
    ended,
    failed,
    intent,
    opening,
    record,
    revised,
    started,
    without_texts,
)
from tests.integration.contracts.store import Repository, Store

_DAY_S = 86_400.0
_KEY = IdempotencyKey("council", "6f2a – not ASCII, but stored all the same", "a1" * 32)
_STRANGE_IDS = ["", "unknown", "\x00", "a\x00b", "\ud800", "x" * 100_000, "'; DROP TABLE events; --", "%s", "🚗"]
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
_BAD_CURSORS = [
    "",
    "x",
    "-1",
    "MQ==",
    "\x00",
    "\ud800",
    "é",
    "1 ",
    " 1",
    "9" * 5_000,
    "OTk5OTk5OTk5OTk5OTk5OTk5OTk5",
    "MDE",
    "LTE",
]


def _unencodable(given: AgentRecord, **texts: str) -> Entry:
    """The end of an agent whose entry was made before the texts of its record went wrong."""
    made = agent_ended("", given, AnswerFormat(AnswerKind.CHOICE, OPTIONS))
    made.record = replace(given, **texts)  # type: ignore[arg-type]
    return made


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
    for strange in _STRANGE_IDS:
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


async def test_seventy_two_concurrent_appends_are_numbered_without_gaps(store: Store) -> None:
    running = await store.start(agents=72)
    async with asyncio.TaskGroup() as group:
        for number in range(72):
            group.create_task(store.repository.append(committing(running.id, records=[record(number)])))
    events = await store.repository.events(running.id, after=2, limit=100)
    assert [event.sequence for event in events] == list(range(3, 75))
    assert {event.data["agent_id"] for event in events} == {f"archon-{number}" for number in range(72)}
    assert [item.record.agent_id for item in await store.repository.records(running.id)] == [
        event.data["agent_id"] for event in events
    ]


async def test_appends_keep_the_order_in_which_they_were_made(store: Store) -> None:
    running = await store.start()
    appends = [store.repository.append(committing(running.id, [intent(number)])) for number in range(50)]
    await asyncio.gather(*appends)
    events = await store.repository.events(running.id, after=2, limit=100)
    assert [event.data["agent_id"] for event in events] == [f"archon-{number}" for number in range(50)]


async def test_ten_deliberations_at_once_do_not_mix_their_numbers(store: Store) -> None:
    running = [await store.start() for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            for each in running:
                group.create_task(store.repository.append(committing(each.id, [intent(number), intent(20 + number)])))
    for each in running:
        assert await store.sequences(each.id) == list(range(1, 43))


async def test_two_repositories_on_one_database_number_one_deliberation_without_gaps(store: Store) -> None:
    running = await store.start(agents=72)
    repositories = [store.repository, await store.open_another()]
    for turn in range(3):
        for place, repository in enumerate(repositories):
            await repository.append(committing(running.id, [intent(2 * turn + place)]))
    async with asyncio.TaskGroup() as group:
        for number in range(60):
            commit = committing(running.id, records=[record(number)])
            group.create_task(repositories[number % 2].append(commit))
    assert await store.sequences(running.id) == list(range(1, 69))
    assert len(await store.repository.records(running.id)) == 60


async def test_many_are_added_by_two_repositories_at_once_and_each_has_its_place(store: Store) -> None:
    repositories = [store.repository, await store.open_another()]
    added = [deliberation() for _ in range(20)]
    async with asyncio.TaskGroup() as group:
        for number, each in enumerate(added):
            group.create_task(repositories[number % 2].add(each, accepted(each)))
    page = await store.repository.page(status=None, key_name=None, limit=50, cursor=None)
    assert sorted(item.id for item in page.items) == sorted(each.id for each in added)


async def test_a_repeated_record_stores_nothing_of_its_append_while_its_neighbours_are_stored(store: Store) -> None:
    running, other = await store.start(), await store.start()
    await store.repository.append(committing(running.id, records=[record(1)]))
    results = await asyncio.gather(
        store.repository.append(committing(running.id, records=[record(0)])),
        store.repository.append(committing(running.id, records=[record(2), record(1, answer="no")])),
        store.repository.append(committing(running.id, records=[failed(2)])),
        store.repository.append(committing(other.id, records=[record(1)])),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), RecordExistsError, type(None), type(None)]
    refused = results[1]
    assert isinstance(refused, RecordExistsError)
    assert (refused.deliberation_id, refused.round_number, refused.agent_id) == (running.id, 0, "archon-1")
    assert [item.record for item in await store.repository.records(running.id)] == [record(1), record(0), failed(2)]
    assert await store.sequences(running.id) == [1, 2, 3, 4, 5]
    assert await store.sequences(other.id) == [1, 2, 3]


async def test_one_append_with_the_same_record_twice_is_refused(store: Store) -> None:
    running = await store.start()
    with pytest.raises(RecordExistsError):
        await store.repository.append(committing(running.id, records=[record(1), record(1)]))
    assert list(await store.repository.records(running.id)) == []
    assert await store.sequences(running.id) == [1, 2]


async def test_of_twenty_that_record_the_same_agent_one_is_taken(store: Store) -> None:
    running = await store.start()
    repositories = [store.repository, await store.open_another()]
    results = await asyncio.gather(
        *(repositories[number % 2].append(committing(running.id, records=[record(1)])) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, RecordExistsError) for result in results) == 19
    assert await store.sequences(running.id) == [1, 2, 3]


async def test_appending_to_what_was_never_added_is_refused_and_harms_no_neighbour(store: Store) -> None:
    running, never = await store.start(), started(deliberation())
    results = await asyncio.gather(
        store.repository.append(committing(never.id, records=[record(1)])),
        store.repository.append(committing(running.id, [intent(1)])),
        store.repository.append(committing(never.id, deliberation=never)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [DeliberationNotFoundError, type(None), DeliberationNotFoundError]
    assert await store.repository.get(never.id) is None


async def test_what_has_ended_takes_no_more(store: Store) -> None:
    running = await store.start()
    over = await store.end(running, [record(0)])
    again = revised(running, [[record(0)]])
    for refused in (
        committing(running.id, [intent(5)]),
        committing(running.id, records=[record(1)]),
        committing(running.id, deliberation=again),
        committing(running.id, deliberation=again),
    ):
        with pytest.raises(DeliberationEndedError):
            await store.repository.append(refused)
    assert await store.repository.get(running.id) == over
    assert await store.sequences(running.id) == [1, 2, 3, 4, 5]


async def test_of_two_repositories_that_end_one_deliberation_one_does(store: Store) -> None:
    running = await store.start()
    another = await store.open_another()
    await another.append(committing(running.id, records=[record(0)]))
    await store.repository.append(committing(running.id, [intent(2)]))
    completed, given_up = ended(running, [record(0)]), revised(running, [[record(0)]])
    results = await asyncio.gather(
        store.repository.append(committing(running.id, deliberation=completed)),
        another.append(committing(running.id, deliberation=given_up)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["DeliberationEndedError", "WitnessSpan"]
    found = await store.repository.get(running.id)
    assert found is not None
    assert found == (completed if isinstance(results[0], WitnessSpan) else given_up)
    assert found.witness in results
    assert await store.sequences(running.id) == [1, 2, 3, 4, 5, 6]


async def test_an_append_whose_commit_is_held_back_cannot_be_seen(store: Store) -> None:
    running = await store.start()
    another = await store.open_another()
    with store.hold_commits():
        append = asyncio.create_task(store.repository.append(committing(running.id, records=[record(1)])))
        for repository in (store.repository, another):
            assert list(await repository.records(running.id)) == []
            assert len(await repository.events(running.id, after=0, limit=10)) == 2
            found = await repository.get(running.id)
            assert found is not None
            assert found.roll_call.asked == 0
        assert not append.done()
    await append
    assert [item.record for item in await another.records(running.id)] == [record(1)]


async def test_what_one_repository_committed_another_reads_at_once(store: Store) -> None:
    running = await store.start()
    another = await store.open_another()
    for number in range(5):
        await store.repository.append(committing(running.id, records=[record(number)]))
        assert [item.record for item in await another.records(running.id)][-1] == record(number)


async def test_a_caller_that_is_cancelled_while_its_append_waits_harms_no_neighbour(store: Store) -> None:
    running = await store.start()
    with store.hold_commits():
        appends = [
            asyncio.create_task(store.repository.append(committing(running.id, records=[record(number)])))
            for number in range(3)
        ]
        await store.repository.records(running.id)
        late = [
            asyncio.create_task(store.repository.append(committing(running.id, records=[record(number)])))
            for number in range(3, 6)
        ]
        await store.repository.records(running.id)
        appends[1].cancel()
        late[1].cancel()
    results = await asyncio.gather(*appends, *late, return_exceptions=True)
    assert [type(result) for result in results] == [type(None), asyncio.CancelledError, type(None)] * 2
    kept = {item.record.agent_id for item in await store.repository.records(running.id)}
    assert kept >= {"archon-0", "archon-2", "archon-3", "archon-5"}
    assert await store.sequences(running.id) == list(range(1, 3 + len(kept)))


@pytest.mark.parametrize(
    "bad",
    [
        Commit("", [Entry({"type": "x", "confidence": float("nan")})]),
        Commit("", [Entry({"type": "x", "model": "\ud800"})]),
        Commit("", [Entry({"type": "x", "model": "y" * 60_000})]),
        committing("", records=[record(0, content="a\x00b")]),
        Commit("", [_unencodable(record(0), content="a\ud800b")]),
        committing("", records=[replace(record(0), reasoning="\x00")]),
        Commit("", [_unencodable(failed(0), model="\ud800")]),
    ],
    ids=["nan", "surrogate in an entry", "too long", "nul", "surrogate", "nul in a reason", "surrogate in a model"],
)
async def test_what_no_database_can_hold_is_refused_and_stores_nothing(store: Store, bad: Commit) -> None:
    running = await store.start()
    refused = replace(bad, deliberation_id=running.id)
    neighbour = committing(running.id, [intent(1)])
    results = await asyncio.gather(
        store.repository.append(refused), store.repository.append(neighbour), return_exceptions=True
    )
    assert isinstance(results[0], ValueError)
    assert results[1] is None
    assert await store.sequences(running.id) == [1, 2, 3]
    assert list(await store.repository.records(running.id)) == []


async def test_changing_what_was_handed_over_changes_nothing_stored(store: Store) -> None:
    running = await store.start()
    beginning = round_started(running.id, 1, ["archon-1"], at=NOON)
    await store.repository.append(Commit(running.id, [beginning]))
    beginning.document["round"] = 9
    beginning.document["agents"].append("archon-2")
    (event,) = await store.repository.events(running.id, after=2, limit=1)
    assert event.data == {"round": 1, "agents": ["archon-1"]}


async def test_events_resume_exactly_after_the_last_one_seen(store: Store) -> None:
    running = await store.start()
    await store.repository.append(committing(running.id, [intent(1), intent(2)]))
    for after, limit, expected in ((0, 2, [1, 2]), (2, 2, [3, 4]), (4, 9, []), (-5, 1, [1]), (2**70, 9, [])):
        events = await store.repository.events(running.id, after=after, limit=limit)
        assert [event.sequence for event in events] == expected
        assert {event.deliberation_id for event in events} <= {running.id}


async def test_an_event_reads_back_exactly(store: Store) -> None:
    running = await store.start()
    (event,) = await store.repository.events(running.id, after=1, limit=1)
    assert (event.type, event.at, event.data) == ("round.started", NOON, {"round": 1, "agents": ["archon-1"]})


async def test_pages_come_newest_first_and_stay_stable_while_new_ones_arrive(store: Store) -> None:
    added = [(await store.add()).id for _ in range(5)]
    first = await store.repository.page(status=None, key_name=None, limit=2, cursor=None)
    await store.add()
    second = await store.repository.page(status=None, key_name=None, limit=2, cursor=first.next_cursor)
    await store.add()
    third = await store.repository.page(status=None, key_name=None, limit=2, cursor=second.next_cursor)
    assert [item.id for page in (first, second, third) for item in page.items] == added[::-1]
    assert third.next_cursor is None


async def test_a_last_page_that_is_full_has_no_next_one(store: Store) -> None:
    await store.add()
    await store.add()
    assert (await store.repository.page(status=None, key_name=None, limit=2, cursor=None)).next_cursor is None


async def test_an_empty_store_has_one_empty_page(store: Store) -> None:
    page = await store.repository.page(status=None, key_name=None, limit=50, cursor=None)
    assert (page.items, page.next_cursor) == ((), None)


async def test_a_page_keeps_to_one_state_and_one_caller(store: Store) -> None:
    mine = await store.start(key_name="mine")
    await store.start(key_name="yours")
    await store.add(key_name="mine")
    await store.add()
    page = await store.repository.page(status=DeliberationStatus.RUNNING, key_name="mine", limit=50, cursor=None)
    assert [item.id for item in page.items] == [mine.id]


async def test_a_page_shows_how_each_stands_without_what_the_agents_said(store: Store) -> None:
    records = [record(0), failed(1, state=AgentState.INVALID), record(2, answer="no")]
    over = await store.end(await store.start(), records)
    running = await store.start()
    await store.repository.append(committing(running.id, records=records))
    page = await store.repository.page(status=None, key_name=None, limit=50, cursor=None)
    at_work, finished = page.items
    assert finished == replace(over, rounds=(), failures=without_texts(over.failures))
    assert at_work == replace(
        running,
        roll_call=over.roll_call,
        failures=without_texts(over.failures),
        usage=over.usage,
        models=over.models,
    )


async def test_a_cursor_that_no_page_came_with_is_refused_by_name(store: Store) -> None:
    await store.add()
    for cursor in _BAD_CURSORS:
        with pytest.raises(InvalidSpecificationError) as refusal:
            await store.repository.page(status=None, key_name=None, limit=2, cursor=cursor)
        assert [problem.pointer for problem in refusal.value.problems] == ["/cursor"]


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


async def _add_under(repository: Repository, key: IdempotencyKey) -> Deliberation:
    added = deliberation()
    await repository.add(added, accepted(added), idempotency=key)
    return added


async def test_a_key_stands_for_the_deliberation_that_was_added_with_it(store: Store) -> None:
    assert await store.repository.remembered(_KEY.scope, _KEY.key) is None
    added = await _add_under(store.repository, _KEY)
    another = await store.open_another()
    assert await another.remembered(_KEY.scope, _KEY.key) == RememberedKey(added.id, _KEY.body_sha256)
    assert await another.get(added.id) == added


async def test_a_deliberation_without_a_key_leaves_none_behind(store: Store) -> None:
    await store.repository.add(added := deliberation(), accepted(added))
    assert await store.repository.remembered("", "") is None


async def test_the_same_key_of_another_caller_stands_for_something_else(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    second = await _add_under(store.repository, replace(_KEY, scope=""))
    found = [await store.repository.remembered(scope, _KEY.key) for scope in (_KEY.scope, "", "nobody")]
    assert [each and each.deliberation_id for each in found] == [first.id, second.id, None]


@pytest.mark.parametrize("strange", _STRANGE_IDS[:5] + _STRANGE_IDS[6:])
async def test_a_key_that_nobody_sent_stands_for_nothing(store: Store, strange: str) -> None:
    await _add_under(store.repository, _KEY)
    assert await store.repository.remembered(_KEY.scope, strange) is None
    assert await store.repository.remembered(strange, _KEY.key) is None


async def test_a_key_that_is_taken_stores_nothing_and_says_what_it_stands_for(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    second = deliberation()
    with pytest.raises(IdempotencyKeyTakenError) as refusal:
        await store.repository.add(second, accepted(second), idempotency=replace(_KEY, body_sha256="b2" * 32))
    assert (refusal.value.deliberation_id, refusal.value.body_sha256) == (first.id, _KEY.body_sha256)
    assert await store.repository.get(second.id) is None
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(first.id, _KEY.body_sha256)


async def test_a_key_that_is_taken_costs_its_neighbours_in_a_batch_nothing(store: Store) -> None:
    running = started(await _add_under(store.repository, _KEY))
    await store.repository.append(opening(running))
    neighbours = [deliberation() for _ in range(3)]
    results = await asyncio.gather(
        *(store.repository.add(each, accepted(each)) for each in neighbours[:2]),
        _add_under(store.repository, _KEY),
        store.repository.append(committing(running.id, records=[record(0)])),
        store.repository.add(neighbours[2], accepted(neighbours[2]), idempotency=replace(_KEY, key="another")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None)] * 2 + [IdempotencyKeyTakenError] + [type(None)] * 2
    assert [await store.sequences(each.id) for each in neighbours] == [[1]] * 3
    assert len(await store.repository.records(running.id)) == 1


async def test_of_twenty_adds_at_once_under_one_key_one_is_stored(store: Store) -> None:
    repositories = [store.repository, *[await store.open_another() for _ in range(3)]]
    added = [deliberation() for _ in range(20)]
    results = await asyncio.gather(
        *(repositories[number % 4].add(each, accepted(each), idempotency=_KEY) for number, each in enumerate(added)),
        return_exceptions=True,
    )
    winner = next(each for each, result in zip(added, results, strict=True) if result is None)
    lost = [result for result in results if result is not None]
    assert [type(each) for each in lost] == [IdempotencyKeyTakenError] * 19
    assert {each.deliberation_id for each in lost if isinstance(each, IdempotencyKeyTakenError)} == {winner.id}
    page = await store.repository.page(status=None, key_name=None, limit=50, cursor=None)
    assert [each.id for each in page.items] == [winner.id]


async def test_after_a_day_a_key_is_free_again(store: Store) -> None:
    first = await _add_under(store.repository, _KEY)
    store.clock.advance(_DAY_S - 0.000_001)
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(first.id, _KEY.body_sha256)
    with pytest.raises(IdempotencyKeyTakenError):
        await _add_under(store.repository, _KEY)
    store.clock.advance(0.000_001)
    assert await store.repository.remembered(_KEY.scope, _KEY.key) is None
    second = await _add_under(store.repository, replace(_KEY, body_sha256="c3" * 32))
    assert await store.repository.remembered(_KEY.scope, _KEY.key) == RememberedKey(second.id, "c3" * 32)
    assert await store.repository.get(first.id) is not None


async def test_a_key_is_free_after_a_day_however_many_others_have_expired_before_it(store: Store) -> None:
    for number in range(40):
        store.clock.advance(0.001)
        await _add_under(store.repository, replace(_KEY, key=f"{number}"))
    store.clock.advance(_DAY_S)
    latest = await _add_under(store.repository, replace(_KEY, key="39"))
    found = await store.repository.remembered(_KEY.scope, "39")
    assert found == RememberedKey(latest.id, _KEY.body_sha256)
    assert await store.repository.remembered(_KEY.scope, "38") is None
