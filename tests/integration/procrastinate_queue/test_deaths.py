"""The queue on Postgres when something dies: a worker, a connection, Postgres itself."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.manager import JobManager
from sqlalchemy import make_url

from application.ports.work_queue import Job
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from tests.integration.procrastinate_queue.queue_tables import connected, rows
from tests.queue_hands import BOUND_S, Hands, serving
from tests.servers.postgres import PostgresServer

_TAKEOVER_S = 10.0
_WORKER = """
import asyncio, sys
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue

async def hold(job):
    print(job.deliberation_id, flush=True)
    await asyncio.Event().wait()

asyncio.run(ProcrastinateQueue(sys.argv[1]).serve(hold, at_a_time=2, stopping=asyncio.Event()))
"""


@contextmanager
def _worker(url: str, repository_root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes two jobs, prints each and never ends one."""
    environment = {**os.environ, "PYTHONPATH": str(repository_root / "src")}
    process = subprocess.Popen([sys.executable, "-c", _WORKER, url], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(BOUND_S):
        return (await asyncio.to_thread(process.stdout.readline)).strip()


async def test_the_jobs_of_a_killed_worker_are_taken_over_within_ten_seconds(
    url: str, queue: ProcrastinateQueue, repository_root: Path
) -> None:
    hands = Hands()
    with _worker(url, repository_root) as process:
        for name in ("one", "two"):
            await queue.put(Job(name))
        assert {await _line(process), await _line(process)} == {"one", "two"}
        async with serving(queue, hands, at_a_time=2):
            await queue.put(Job("own"))
            await hands.until(ended=1)
            process.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            await hands.until(ended=3)
            took = time.monotonic() - killed
    assert set(hands.begun) == {"own", "one", "two"}
    assert took < _TAKEOVER_S


async def test_of_many_that_could_take_over_one_does(
    url: str, queue: ProcrastinateQueue, repository_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    others = [ProcrastinateQueue(url) for _ in range(2)]
    hands = Hands()
    with _worker(url, repository_root) as process, caplog.at_level(logging.WARNING):
        for name in ("one", "two"):
            await queue.put(Job(name))
        await _line(process), await _line(process)
        async with serving(queue, hands), serving(others[0], hands), serving(others[1], hands):
            process.kill()
            await hands.until(ended=2)
    for other in others:
        await other.close()
    assert sorted(hands.begun) == ["one", "two"]
    assert len([r for r in caplog.records if "which is silent, waits again" in r.getMessage()]) == 2


async def test_a_dead_workers_job_that_waits_again_already_is_handled_once(url: str, queue: ProcrastinateQueue) -> None:
    await queue.put(Job("same"))
    with connected(url) as connection:
        connection.execute(b"UPDATE procrastinate_jobs SET status = 'doing'")
    await queue.put(Job("same"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=1)
        await queue.put(Job("after"))
        await hands.until(ended=2)
    assert hands.begun == ["same", "after"]
    assert rows(url, "SELECT id FROM procrastinate_jobs") == []


async def test_a_worker_that_drains_lives_on_for_the_others(url: str) -> None:
    queues = [ProcrastinateQueue(url, heartbeat_s=0.05, stalled_s=0.5) for _ in range(2)]
    held, hands = Hands(holds=True), Hands()
    stopping = asyncio.Event()
    await queues[0].put(Job("held"))
    draining = asyncio.create_task(queues[0].serve(held, at_a_time=1, stopping=stopping))
    await held.until(begun=1)
    stopping.set()
    async with serving(queues[1], hands):
        # As long as a dead worker would have been found out, three times over.
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            handled = len(hands.ended)
            await queues[1].put(Job(f"d-{handled}"))
            await hands.until(ended=handled + 1)
        assert "held" not in hands.begun
        held.may_end.set()
        async with asyncio.timeout(BOUND_S):
            await draining
    assert held.ended == ["held"]
    assert "held" not in hands.begun
    for queue in queues:
        await queue.close()


async def test_postgres_goes_and_comes_back_while_jobs_are_in_hand(
    url: str, queue: ProcrastinateQueue, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    hands = Hands(holds=True)
    with caplog.at_level(logging.INFO):
        async with serving(queue, hands, at_a_time=2):
            await queue.put(Job("across"))
            await hands.until(begun=1)
            await asyncio.to_thread(postgres_server.stop)
            with pytest.raises(DependencyUnavailableError, match="queue"):
                await queue.put(Job("lost"))
            hands.may_end.set()
            await hands.until(ended=1)
            await asyncio.to_thread(postgres_server.start)
            await queue.put(Job("after"))
            await hands.until(ended=2)
    assert hands.begun == ["across", "after"]
    assert await queue.waiting_count() == 0
    assert rows(url, "SELECT id FROM procrastinate_jobs") == []
    told = [record.getMessage() for record in caplog.records]
    assert any("the queue is away and is waited for" in line for line in told)
    assert not any(str(make_url(url).password) in line for line in told)


async def test_a_queue_that_is_away_at_the_start_is_waited_for(
    url: str, queue: ProcrastinateQueue, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.put(Job("early"))
    await asyncio.to_thread(postgres_server.stop)
    hands = Hands()
    with caplog.at_level(logging.WARNING):
        async with serving(queue, hands):
            # Nobody answers, which it notices long before.
            with pytest.raises(DependencyUnavailableError):
                await queue.waiting_count()
            await asyncio.to_thread(postgres_server.start)
            await hands.until(ended=1)
    assert any("is waited for" in record.getMessage() for record in caplog.records)
    assert hands.begun == ["early"]


async def test_connections_that_the_server_kills_are_replaced(url: str, queue: ProcrastinateQueue) -> None:
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'conclave queue' "
    kill += "AND datname = current_database()"
    hands = Hands()
    async with serving(queue, hands, at_a_time=2):
        for number in range(5):
            await queue.put(Job(f"d-{number}"))
            await hands.until(ended=number + 1)
            assert rows(url, kill)
        await queue.put(Job("last"))
        await hands.until(ended=6)
    assert hands.begun == [*(f"d-{number}" for number in range(5)), "last"]


async def test_a_job_whose_giving_was_never_heard_of_is_handled(
    url: str, queue: ProcrastinateQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = JobManager.fetch_job
    failed: list[Any] = []

    async def lose(self: Any, *given: Any) -> Any:
        found = await fetch(self, *given)
        if found is not None and not failed:
            failed.append(found)
            raise ConnectorException("the connection was lost")
        return found

    monkeypatch.setattr(JobManager, "fetch_job", lose)
    await queue.put(Job("given"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=1)
    assert (len(failed), hands.begun) == (1, ["given"])


async def test_a_worker_that_was_forgotten_registers_anew(url: str, queue: ProcrastinateQueue) -> None:
    hands = Hands()
    async with serving(queue, hands):
        await queue.put(Job("before"))
        await hands.until(ended=1)
        with connected(url) as connection:
            connection.execute(b"DELETE FROM procrastinate.procrastinate_workers")
        await queue.put(Job("after"))
        await hands.until(ended=2)
    assert hands.begun == ["before", "after"]
