"""The queue on Postgres when something dies: a worker, a connection, Postgres itself; and what its schema needs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from sqlalchemy import make_url

from application.ports.work_queue import Job
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import downgrade, upgrade
from infrastructure.persistence.privileges import rights_beyond_appending
from infrastructure.queues import procrastinate_worker
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from infrastructure.queues.procrastinate_schema import make_schema
from tests.queue_hands import BOUND_S, Hands, database, serving
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


@pytest.fixture
async def queue(url: str) -> AsyncIterator[ProcrastinateQueue]:
    """An empty queue in it."""
    opened = ProcrastinateQueue(url, count_age_s=0.0)
    yield opened
    await opened.close()


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(b"SET search_path TO public, procrastinate")
        yield connection


def _rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with _connected(url) as connection:
        return connection.execute(query.encode()).fetchall()


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
    with _connected(url) as connection:
        connection.execute(b"UPDATE procrastinate_jobs SET status = 'doing'")
    await queue.put(Job("same"))
    hands = Hands()
    async with serving(queue, hands):
        await hands.until(ended=1)
        await queue.put(Job("after"))
        await hands.until(ended=2)
    assert hands.begun == ["same", "after"]
    assert _rows(url, "SELECT id FROM procrastinate_jobs") == []


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
    assert _rows(url, "SELECT id FROM procrastinate_jobs") == []
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
            assert _rows(url, kill)
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
        with _connected(url) as connection:
            connection.execute(b"DELETE FROM procrastinate.procrastinate_workers")
        await queue.put(Job("after"))
        await hands.until(ended=2)
    assert hands.begun == ["before", "after"]


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
    ((attempts, waits),) = _rows(url, "SELECT attempts, scheduled_at > now() FROM procrastinate_jobs")
    assert (attempts, waits) == (1, True)
    monkeypatch.setattr(procrastinate_worker, "JOB_VERSION", 2)
    async with serving(queue, hands):
        await hands.until(ended=2)
    assert hands.begun == ["known", "later"]


async def test_a_row_that_is_no_job_is_told_and_over(
    url: str, queue: ProcrastinateQueue, caplog: pytest.LogCaptureFixture
) -> None:
    insert = b"INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('conclave', 'x', %s::jsonb)"
    with _connected(url) as connection:
        for args in ('{"version": "one"}', "{}", '{"version": 1, "deliberation_id": 7, "key_name": null}'):
            connection.execute(insert, [args])
    hands = Hands()
    async with serving(queue, hands):
        await queue.put(Job("sound"))
        await hands.until(ended=1)
    assert hands.begun == ["sound"]
    assert len([r for r in caplog.records if "says nothing that could be worked on" in r.getMessage()]) == 3
    assert _rows(url, "SELECT id FROM procrastinate_jobs") == []


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
    assert _rows(url, "SELECT id FROM procrastinate_jobs") == []
    assert _rows(url, "SELECT id FROM procrastinate_events") == []
    assert _rows(url, "SELECT id FROM procrastinate_workers") == []


async def test_it_never_holds_more_connections_than_it_may(url: str) -> None:
    queue = ProcrastinateQueue(url, connections=2)
    hands = Hands()
    counts: list[int] = []

    async def handle(job: Job) -> None:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'conclave queue' "
        counts.append((await asyncio.to_thread(_rows, url, query + "AND datname = current_database()"))[0][0])
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


async def test_without_its_tables_it_says_what_to_do(postgres_url: str) -> None:
    queue = ProcrastinateQueue(postgres_url)
    with pytest.raises(DependencyUnavailableError, match="conclave db upgrade"):
        await queue.put(Job("early"))
    await queue.close()


def test_a_database_that_is_no_postgres_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ProcrastinateQueue("sqlite:////somewhere/conclave.db")
    assert refused.value.variable == "CONCLAVE_DATABASE_URL"


async def test_the_applications_role_can_use_the_queue_and_has_no_more_rights_on_the_record(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = f"app_{make_url(postgres_url).database}"
    application = make_url(postgres_url).set(username=name, password="secret").render_as_string(hide_password=False)
    upgrade(postgres_url, application_url=application)
    queue = ProcrastinateQueue(application)
    hands = Hands()
    try:
        async with serving(queue, hands):
            for job in ("one", "two"):
                await queue.put(Job(job))
            await queue.withdraw("two")
            await queue.waiting_count()
            await hands.until(ended=1)
        assert rights_beyond_appending(application) == []
    finally:
        await queue.close()
        with _connected(postgres_url) as connection:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def test_making_the_tables_again_changes_nothing(url: str) -> None:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'procrastinate'::regnamespace ORDER BY 1"
    before = _rows(url, query)
    engine = open_sync_engine(url)
    with engine.begin() as connection:
        make_schema(connection)
        assert connection.exec_driver_sql("SHOW search_path").scalar() == '"$user", public'
    engine.dispose()
    assert _rows(url, query) == before
    assert ("procrastinate_jobs",) in before


def test_what_a_later_procrastinate_adds_is_added_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "00.00.00_01_initial.sql").write_text("THIS WAS DONE LONG AGO")
    (tmp_path / "99.00.00_01_more.sql").write_text("CREATE TABLE more (percent TEXT DEFAULT '100 %'); SELECT 1")
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    engine = open_sync_engine(url)
    for _ in range(2):
        with engine.begin() as connection:
            make_schema(connection)
    engine.dispose()
    assert _rows(url, "SELECT to_regclass('procrastinate.more') IS NULL, to_regclass('public.more') IS NULL") == [
        (False, True)
    ]


def test_tables_that_somebody_else_made_are_left_alone(postgres_url: str) -> None:
    with _connected(postgres_url) as connection:
        connection.execute(b"CREATE SCHEMA procrastinate")
    with pytest.raises(ConfigurationError, match="did not make"):
        upgrade(postgres_url)
    assert _rows(postgres_url, "SELECT to_regclass('public.deliberations')") == [(None,)]


def test_going_down_takes_the_tables_of_the_queue_along(postgres_url: str) -> None:
    upgrade(postgres_url)
    downgrade(postgres_url, "0003")
    assert _rows(postgres_url, "SELECT to_regnamespace('procrastinate')") == [(None,)]
    upgrade(postgres_url)
    assert _rows(postgres_url, "SELECT to_regclass('procrastinate.procrastinate_jobs') IS NULL") == [(False,)]
