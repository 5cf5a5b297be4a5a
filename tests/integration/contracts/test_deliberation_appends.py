"""Appends to a deliberation: numbered without gaps, all or nothing, once, seen only when committed, and no harm to their neighbours."""

import asyncio
from dataclasses import replace

import pytest

from application.ports.deliberation_repository import Commit
from domain.errors.deliberation import DeliberationEndedError, DeliberationNotFoundError, RecordExistsError
from domain.models.deliberation import WitnessSpan
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.round import AgentRecord
from domain.witness.entry import Entry, accepted, agent_ended
from tests.deliberation_specimens import (
    OPTIONS,
    committing,
    deliberation,
    ended,
    failed,
    intent,
    record,
    revised,
    started,
)
from tests.integration.contracts.store import Store


def _unencodable(given: AgentRecord, **texts: str) -> Entry:
    """The end of an agent whose entry was made before the texts of its record went wrong."""
    made = agent_ended("", given, AnswerFormat(AnswerKind.CHOICE, OPTIONS))
    made.record = replace(given, **texts)  # type: ignore[arg-type]
    return made


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
