"""The work queue of any number of workers on any number of machines: jobs of procrastinate in Postgres."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.manager import JobManager

from application.ports.work_queue import Job
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.engine import database_url
from infrastructure.queues.procrastinate_schema import SCHEMA
from infrastructure.queues.procrastinate_worker import PATIENCE_S, PAUSE_S, QUEUE, Consumer, bounded, reason_and_remedy

__all__ = ["ProcrastinateQueue"]

_TASK = "conclave:deliberation"

# Callers take turns by rounds: a job is one round after its caller's last one, never before what has begun or waits first.
# One statement, so that a put is one round trip; and whoever is there already is not even tried, which Postgres would log.
_PUT = """
WITH jobs AS (
    SELECT status, -priority AS round, args ->> 'key_name' AS caller FROM procrastinate_jobs
    WHERE status IN ('todo', 'doing') AND queue_name = %(queue)s
), turn AS (
    SELECT greatest(
        coalesce(max(round) FILTER (WHERE status = 'doing') + 1, 0),
        coalesce(max(round) FILTER (WHERE caller IS NOT DISTINCT FROM %(caller)s::text) + 1, 0),
        coalesce(min(round) FILTER (WHERE status = 'todo'), 0)
    ) AS round FROM jobs
)
SELECT unnest(procrastinate_defer_jobs_v1(ARRAY[
    ROW(%(queue)s, %(task)s, -turn.round, %(key)s, %(key)s, %(args)s::jsonb, NULL)::procrastinate_job_to_defer_v1
])) AS id FROM turn
WHERE NOT EXISTS (SELECT 1 FROM procrastinate_jobs WHERE status = 'todo' AND queueing_lock = %(key)s)
"""
_COUNT = "SELECT count(*) AS waiting FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = %(queue)s"


class ProcrastinateQueue:
    """A `WorkQueue` over Postgres with at most `connections` connections, and one more while it serves.

    A crash of Postgres itself can undo what the queue was told in its last second: whoever puts jobs looks for forgotten ones.

    What `serve` has in hand stays in hand while Postgres is away; a consumer that is silent for `stalled_s` is taken for dead, and
    what it had in hand waits again. Opens with the first call; `close` it at the end. Belongs to one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        heartbeat_s: float = 1.0,
        stalled_s: float = 3.0,
        count_age_s: float = 0.25,
    ) -> None:
        """`url` is that of Conclave's database. Every `heartbeat_s` a consumer says that it lives; `stalled_s` must be well above.

        `waiting_count` may be `count_age_s` old. Raises `ConfigurationError` for a URL that cannot be used.
        """
        address = database_url(url)
        if address.get_backend_name() != "postgresql":
            raise ConfigurationError(
                variable="CONCLAVE_DATABASE_URL",
                problem="names no Postgres, in which the jobs of procrastinate are kept",
                remedy="Use postgresql://USER:PASSWORD@HOST/NAME, or CONCLAVE_QUEUE=embedded.",
            )
        self._connector = PsycopgConnector(
            conninfo=address.set(drivername="postgresql").render_as_string(hide_password=False),
            name="queue",
            # None to begin with, so that a start does not wait for a Postgres that is away.
            min_size=0,
            max_size=connections,
            timeout=PATIENCE_S,
            reconnect_timeout=2 * PAUSE_S,
            configure=_configure,
            kwargs={"connect_timeout": int(PATIENCE_S), "application_name": "conclave queue"},
        )
        self._app = App(connector=self._connector)
        self._opening = asyncio.Lock()
        self._is_open = False
        self._heartbeat_s = heartbeat_s
        self._stalled_s = stalled_s
        self._count_age_s = count_age_s
        self._counted: tuple[float, int] | None = None

    async def close(self) -> None:
        """Give the connections back. Safe to call twice."""
        async with self._opening:
            if self._is_open:
                self._is_open = False
                await self._app.close_async()

    async def put(self, job: Job) -> None:
        """See `WorkQueue.put`."""
        with _unavailability():
            await self._open()
            values = {
                "queue": QUEUE,
                "task": _TASK,
                "key": job.deliberation_id,
                "caller": job.key_name,
                "args": {"version": job.version, "deliberation_id": job.deliberation_id, "key_name": job.key_name},
            }
            try:
                added = await bounded(self._connector.execute_query_all_async(_PUT, **values))
            except UniqueViolation:
                # Another process put it at the same time.
                return
        if added and self._counted is not None:
            moment, count = self._counted
            self._counted = moment, count + 1

    async def withdraw(self, deliberation_id: str) -> bool:
        """See `WorkQueue.withdraw`."""
        with _unavailability():
            manager = await self._open()
            found = await bounded(manager.list_jobs_async(queue=QUEUE, status="todo", queueing_lock=deliberation_id))
            taken = [await bounded(manager.cancel_job_by_id_async(job.id, delete_job=True)) for job in found if job.id]
        self._counted = None
        return any(taken)

    async def waiting_count(self) -> int:
        """See `WorkQueue.waiting_count`. At most 250 ms old; what this process puts and withdraws shows at once."""
        if self._counted is not None and time.monotonic() - self._counted[0] < self._count_age_s:
            return self._counted[1]
        with _unavailability():
            await self._open()
            row = await bounded(self._connector.execute_query_one_async(_COUNT, queue=QUEUE))
        self._counted = time.monotonic(), int(row["waiting"])
        return self._counted[1]

    async def serve(self, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int, stopping: asyncio.Event) -> None:
        """See `WorkQueue.serve`."""
        manager = await self._open()
        consumer = Consumer(self._connector, manager, handle, at_a_time, stopping, (self._heartbeat_s, self._stalled_s))
        await consumer.run()

    async def _open(self) -> JobManager:
        if not self._is_open:
            async with self._opening:
                if not self._is_open:
                    # It tells every loan of a connection.
                    logging.getLogger("psycopg.pool").setLevel(logging.WARNING)
                    await self._app.open_async()
                    self._is_open = True
        return self._app.job_manager


async def _configure(connection: Any) -> None:
    await connection.set_autocommit(True)
    # What a crash of Postgres takes from the queue is found again in the deliberations, so a put need not wait for the disk.
    await connection.execute(f"SET search_path TO {SCHEMA}; SET synchronous_commit TO off")


@contextmanager
def _unavailability() -> Iterator[None]:
    try:
        yield
    except (ConnectorException, TimeoutError) as error:
        problem, remedy = reason_and_remedy(error)
        raise DependencyUnavailableError(dependency="queue", problem=problem, remedy=remedy) from error
