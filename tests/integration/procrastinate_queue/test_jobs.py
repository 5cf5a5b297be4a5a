"""Jobs in the queue on Postgres: what cannot be worked on, what is left of those that are over, and what they may cost."""

from __future__ import annotations

import asyncio

import pytest

from application.ports.work_queue import Job
from infrastructure.queues import procrastinate_worker
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from tests.integration.procrastinate_queue.queue_tables import connected, rows
from tests.queue_hands import Hands, serving


async def test_it_stops_while_jobs_are_put(url: str, queue: ProcrastinateQueue) -> None:
    other = ProcrastinateQueue(url)
    for number in range(20):
        hands = Hands()
        async with serving(queue, hands):
            await other.put(Job(f"first-{number}"))
            await hands.until(ended=1)
            putting = asyncio.gather(*(other.put(Job(f"d-{number}-{place}")) for place in range(20)))
        await putting
    await other.close()


async def test_a_job_that_others_were_left_is_handled_by_who_knows_its_version(
    url: str, queue: ProcrastinateQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = ProcrastinateQueue(url)
    await queue.put(Job("later", "a", 2))
    await queue.put(Job("known", "a"))
    hands = Hands()
    async with serving(left, hands):
        await hands.until(ended=1)
    await left.close()
    assert hands.begun == ["known"]
    ((attempts, waits),) = rows(url, "SELECT attempts, scheduled_at > now() FROM procrastinate_jobs")
    assert (attempts, waits) == (1, True)
    monkeypatch.setattr(procrastinate_worker, "JOB_VERSION", 2)
    async with serving(queue, hands):
        await hands.until(ended=2)
    assert hands.begun == ["known", "later"]


async def test_a_row_that_is_no_job_is_told_and_over(
    url: str, queue: ProcrastinateQueue, caplog: pytest.LogCaptureFixture
) -> None:
    insert = b"INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('conclave', 'x', %s::jsonb)"
    with connected(url) as connection:
        for args in ('{"version": "one"}', "{}", '{"version": 1, "deliberation_id": 7, "key_name": null}'):
            connection.execute(insert, [args])
    hands = Hands()
    async with serving(queue, hands):
        await queue.put(Job("sound"))
        await hands.until(ended=1)
    assert hands.begun == ["sound"]
    assert len([r for r in caplog.records if "says nothing that could be worked on" in r.getMessage()]) == 3
    assert rows(url, "SELECT id FROM procrastinate_jobs") == []


async def test_what_is_over_leaves_nothing_behind(url: str, queue: ProcrastinateQueue) -> None:
    hands = Hands()

    async def handle(job: Job) -> None:
        await hands(job)
        if job.deliberation_id == "d-1":
            raise RuntimeError("as planned")

    async with serving(queue, handle):
        for number in range(3):
            await queue.put(Job(f"d-{number}"))
        await hands.until(ended=3)
    assert rows(url, "SELECT id FROM procrastinate_jobs") == []
    assert rows(url, "SELECT id FROM procrastinate_events") == []
    assert rows(url, "SELECT id FROM procrastinate_workers") == []


async def test_it_never_holds_more_connections_than_it_may(url: str) -> None:
    queue = ProcrastinateQueue(url, connections=2)
    hands = Hands()
    counts: list[int] = []

    async def handle(job: Job) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'conclave queue' "
        counts.append((await asyncio.to_thread(rows, url, query + "AND datname = current_database()"))[0][0])
        await hands(job)

    async with serving(queue, handle, at_a_time=5):
        await asyncio.gather(*(queue.put(Job(f"d-{number}")) for number in range(30)))
        await hands.until(ended=30)
    await queue.close()
    assert 0 < max(counts) <= 3


async def test_the_count_of_what_waits_is_not_asked_for_each_time(url: str) -> None:
    queue, other = ProcrastinateQueue(url, count_age_s=60.0), ProcrastinateQueue(url)
    assert await queue.waiting_count() == 0
    await other.put(Job("theirs"))
    assert await queue.waiting_count() == 0
    await queue.put(Job("ours"))
    await queue.put(Job("ours"))
    assert await queue.waiting_count() == 1
    assert await queue.withdraw("ours")
    assert await queue.waiting_count() == 1
    for opened in (queue, other):
        await opened.close()
