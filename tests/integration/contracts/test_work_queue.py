"""What the work queue promises, held against both adapters: the one within a process, and procrastinate on Postgres."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from application.ports.work_queue import JOB_VERSION, Job, WorkQueue
from application.services.log_ids import log_ids, present_log_ids
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from tests.queue_hands import BOUND_S, Hands, database, serving
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer) -> Iterator[str]:
    """A Postgres database with the tables of this version, to copy from."""
    with database(postgres_server) as name:
        yield name


@pytest.fixture
def url(postgres_server: PostgresServer, template: str) -> Iterator[str]:
    """The address of a Postgres database of this test's own."""
    with database(postgres_server, template) as name:
        yield postgres_server.url(name)


Others = Callable[[], WorkQueue]


@pytest.fixture(params=["embedded", "procrastinate"])
async def others(request: pytest.FixtureRequest) -> AsyncIterator[Others]:
    """What gives one more door to the same jobs: as another process has it, where there can be another one."""
    if request.param == "embedded":
        only = EmbeddedQueue()
        yield lambda: only
        return
    url: str = request.getfixturevalue("url")
    opened: list[ProcrastinateQueue] = []

    def another() -> WorkQueue:
        opened.append(ProcrastinateQueue(url, count_age_s=0.0))
        return opened[-1]

    yield another
    for queue in opened:
        await queue.close()


@pytest.fixture
def queue(others: Others) -> WorkQueue:
    """An empty queue."""
    return others()


def _job(name: str, caller: str | None = "a") -> Job:
    return Job(name, caller)


async def test_each_job_is_handled_once_as_it_was_put(queue: WorkQueue) -> None:
    put = [Job(f"d-{number}", ("a", "b", None)[number % 3]) for number in range(20)]
    handled: list[Job] = []
    hands = Hands()

    async def handle(job: Job) -> None:
        handled.append(job)
        await hands(job)

    async with serving(queue, handle, at_a_time=4):
        for job in put:
            await queue.put(job)
        await hands.until(ended=len(put))
    assert Counter(handled) == Counter(put)
    assert await queue.waiting_count() == 0


async def test_what_was_put_before_anybody_served_is_handled(queue: WorkQueue) -> None:
    await queue.put(_job("early"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=1)
    assert hands.begun == ["early"]


async def test_no_more_than_so_many_are_in_hand(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    for number in range(9):
        await queue.put(_job(f"d-{number}"))
    async with serving(queue, hands, at_a_time=3):
        await hands.until(begun=3)
        hands.may_end.set()
        await hands.until(ended=9)
    assert hands.most_at_once == 3


async def test_callers_take_turns_and_each_is_served_in_its_order(queue: WorkQueue) -> None:
    for number in range(20):
        await queue.put(_job(f"a-{number}", "a"))
    for number in range(2):
        await queue.put(_job(f"b-{number}", "b"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=22)
    assert hands.begun[:4] == ["a-0", "b-0", "a-1", "b-1"]
    assert [name for name in hands.begun if name.startswith("a")] == [f"a-{number}" for number in range(20)]


async def test_a_caller_that_always_has_one_more_does_not_keep_the_others_waiting(queue: WorkQueue) -> None:
    for number in range(5):
        await queue.put(_job(f"a-{number}", "a"))
    for caller in ("b", "c"):
        await queue.put(_job(f"{caller}-0", caller))
    hands = Hands()

    async def handle(job: Job) -> None:
        caller, number = job.deliberation_id.split("-")
        if caller != "a" and int(number) < 20:
            await queue.put(_job(f"{caller}-{int(number) + 1}", caller))
        await hands(job)

    async with serving(queue, handle):
        await hands.until(ended=47)
    last = max(place for place, name in enumerate(hands.begun) if name.startswith("a"))
    assert last <= 15


async def test_a_job_put_again_while_it_waits_is_one_job(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    async with serving(queue, hands):
        await queue.put(_job("first"))
        await hands.until(begun=1)
        for _ in range(3):
            await queue.put(_job("second"))
        assert await queue.waiting_count() == 1
        hands.may_end.set()
        await hands.until(ended=2)
    assert hands.begun == ["first", "second"]
    assert await queue.waiting_count() == 0


async def test_a_job_put_while_it_is_in_hand_is_handled_again_and_not_before_that_is_over(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    async with serving(queue, hands, at_a_time=3):
        await queue.put(_job("same"))
        await hands.until(begun=1)
        await queue.put(_job("same"))
        await queue.put(_job("other"))
        await hands.until(begun=2)
        assert (hands.begun, await queue.waiting_count()) == (["same", "other"], 1)
        hands.may_end.set()
        await hands.until(ended=3)
    assert hands.begun == ["same", "other", "same"]


async def test_what_waits_can_be_withdrawn_and_is_not_handled(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    async with serving(queue, hands):
        await queue.put(_job("begun"))
        await hands.until(begun=1)
        for name in ("gone", "stays"):
            await queue.put(_job(name))
        assert await queue.withdraw("gone")
        assert await queue.waiting_count() == 1
        hands.may_end.set()
        await hands.until(ended=2)
    assert hands.begun == ["begun", "stays"]


async def test_neither_what_is_in_hand_nor_what_is_unknown_can_be_withdrawn(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    async with serving(queue, hands):
        await queue.put(_job("begun"))
        await hands.until(begun=1)
        assert not await queue.withdraw("begun")
        assert not await queue.withdraw("unknown")
        hands.may_end.set()
        await hands.until(ended=1)
    assert not await queue.withdraw("begun")


async def test_what_was_withdrawn_can_be_put_again(queue: WorkQueue) -> None:
    await queue.put(_job("again"))
    assert await queue.withdraw("again")
    await queue.put(_job("again"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=1)
    assert hands.begun == ["again"]


async def test_told_to_stop_it_takes_no_more_and_ends_with_what_is_in_hand(queue: WorkQueue) -> None:
    hands = Hands(holds=True)
    stopping = asyncio.Event()
    for name in ("one", "two", "three"):
        await queue.put(_job(name))
    consumer = asyncio.create_task(queue.serve(hands, at_a_time=2, stopping=stopping))
    await hands.until(begun=2)
    stopping.set()
    await queue.put(_job("four"))
    assert not consumer.done()
    hands.may_end.set()
    async with asyncio.timeout(BOUND_S):
        await consumer
    assert (hands.ended, await queue.waiting_count()) == (["one", "two"], 2)


async def test_told_to_stop_before_it_began_it_takes_nothing(queue: WorkQueue) -> None:
    await queue.put(_job("waits"))
    stopping = asyncio.Event()
    stopping.set()
    hands = Hands()
    async with asyncio.timeout(BOUND_S):
        await queue.serve(hands, at_a_time=1, stopping=stopping)
    assert (hands.begun, await queue.waiting_count()) == ([], 1)


async def test_a_job_that_breaks_is_logged_and_over_and_the_next_is_handled(
    queue: WorkQueue, caplog: pytest.LogCaptureFixture
) -> None:
    hands = Hands()
    ids: list[dict[str, str]] = []

    async def handle(job: Job) -> None:
        ids.append(dict(present_log_ids()))
        await hands(job)
        if job.deliberation_id == "broken":
            raise RuntimeError("as planned")

    with caplog.at_level(logging.ERROR), log_ids(request="whoever put it"):
        async with serving(queue, handle):
            for name in ("broken", "sound"):
                await queue.put(_job(name))
            await hands.until(ended=2)
    assert ids == [{"deliberation_id": "broken"}, {"deliberation_id": "sound"}]
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "as planned" in str(record.exc_info)
    assert await queue.waiting_count() == 0


async def test_a_job_whose_work_cancels_itself_is_over(queue: WorkQueue) -> None:
    hands = Hands()

    async def handle(job: Job) -> None:
        await hands(job)
        if job.deliberation_id == "broken":
            raise asyncio.CancelledError

    async with serving(queue, handle):
        for name in ("broken", "sound"):
            await queue.put(_job(name))
        await hands.until(ended=2)
    assert hands.begun == ["broken", "sound"]
    assert await queue.waiting_count() == 0


async def test_what_a_cancelled_consumer_had_in_hand_is_handled_by_another(others: Others) -> None:
    first, second = others(), others()
    hands = Hands(holds=True)
    cancelled = asyncio.create_task(first.serve(hands, at_a_time=1, stopping=asyncio.Event()))
    await first.put(_job("left"))
    await hands.until(begun=1)
    cancelled.cancel()
    async with asyncio.timeout(BOUND_S):
        await asyncio.gather(cancelled, return_exceptions=True)
    assert cancelled.cancelled()
    assert hands.in_hand == []
    hands.may_end.set()
    async with serving(second, hands):
        await hands.until(ended=2)
    assert hands.begun == ["left", "left"]


async def test_a_job_of_a_later_version_is_neither_handled_nor_lost(
    queue: WorkQueue, caplog: pytest.LogCaptureFixture
) -> None:
    hands = Hands()
    with caplog.at_level(logging.WARNING):
        async with serving(queue, hands):
            await queue.put(Job("later", "a", JOB_VERSION + 1))
            await queue.put(_job("known"))
            await hands.until(ended=1)
    assert hands.begun == ["known"]
    assert [r.getMessage() for r in caplog.records if "is left to others" in r.getMessage()]
    assert await queue.waiting_count() == 1
    assert await queue.withdraw("later")


async def test_many_that_put_and_many_that_serve_handle_each_job_exactly_once(others: Others) -> None:
    doors = [others() for _ in range(4)]
    early, late = ([f"{when}-{number}" for number in range(30)] for when in ("early", "late"))
    # At the same time, by two doors each: one of the two finds the other's.
    await asyncio.gather(*(door.put(_job(name, name[-1])) for name in early for door in doors[:2]))
    assert await doors[2].waiting_count() == 30
    hands = Hands()
    async with serving(doors[0], hands, at_a_time=3), serving(doors[1], hands, at_a_time=3):
        await asyncio.gather(*(doors[place % 4].put(_job(name, name[-1])) for place, name in enumerate(late)))
        await hands.until(ended=60)
    assert Counter(hands.begun) == Counter([*early, *late])
    assert hands.most_at_once <= 6
    assert await doors[2].waiting_count() == 0


async def test_what_waits_is_counted_over_everybody(others: Others) -> None:
    queue, watcher = others(), others()
    for number in range(3):
        await queue.put(_job(f"d-{number}"))
    assert await queue.waiting_count() == 3
    assert await watcher.waiting_count() == 3
