"""Pages of deliberations and runs of their events: in order, stable while more arrive, and resumed exactly where they ended."""

from dataclasses import replace

import pytest

from domain.errors.deliberation import InvalidSpecificationError
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from tests.deliberation_specimens import NOON, committing, failed, intent, record, without_texts
from tests.integration.contracts.store import Store

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
