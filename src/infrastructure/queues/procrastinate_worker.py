"""Works on the jobs that procrastinate keeps: takes them, says that it lives, and takes over from workers that do not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TypeVar

from procrastinate import PsycopgConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job as StoredJob
from procrastinate.jobs import Status
from procrastinate.manager import JobManager

from application.ports.work_queue import JOB_VERSION, Job
from application.services.log_ids import log_ids, unbound_context

__all__ = ["PATIENCE_S", "PAUSE_S", "QUEUE", "Consumer", "bounded", "reason_and_remedy"]

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

QUEUE = "conclave"
"""The name of the queue among those that procrastinate may keep in the same tables."""

PATIENCE_S = 5.0
"""How long one statement may take, waiting for a connection included."""

PAUSE_S = 0.5
"""Between two tries while Postgres is away."""

# How long a job can lie there when its notification was lost.
_POLL_S = 1.0
# What a job of a later version waits until it is offered again, perhaps to a worker that knows it: longer each time.
_UNKNOWN_S = 2.0
_UNKNOWN_AT_MOST_S = 60.0
# Rows of dead workers harm nobody; one that was only slow finds its own again.
_FORGOTTEN_S = 60.0
# Not the present: this machine's clock may be ahead of that of Postgres, which compares.
_AT_ONCE = datetime(2000, 1, 1, tzinfo=UTC)

_GONE = "23503"  # foreign_key_violation: the worker that takes a job is not registered any more
_NOT_THERE = "P0001"  # raise_exception: the job is not in the state that it was thought to be in
_UNREACHABLE = "it cannot be reached, or the connection was lost"
_REFUSALS = {
    "3F": ("its tables are missing or of another version", "Run `conclave db upgrade`."),
    "42": ("its tables are missing or of another version, or the user may not use them", "Run `conclave db upgrade`."),
    "28": ("it refuses the user or the password", "Check CONCLAVE_DATABASE_URL."),
    "3D": ("there is no database of that name", "Check CONCLAVE_DATABASE_URL."),
}

_FIRST_ALIVE = """
SELECT min(id) AS id FROM procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => %(seconds)s)
"""
_LATER = "SELECT now() + make_interval(secs => %(seconds)s) AS moment"


class Consumer:
    """One call of `serve`: a registered worker that takes jobs, says that it lives, and puts back what dead ones had.

    Not the worker that procrastinate brings: at its first lost connection that one takes no job until those in hand are over, and
    while it waits for those in hand at its end it says no more that it lives.
    """

    def __init__(
        self,
        connector: PsycopgConnector,
        manager: JobManager,
        handle: Callable[[Job], Awaitable[None]],
        at_a_time: int,
        stopping: asyncio.Event,
        rhythm: tuple[float, float],
    ) -> None:
        self._connector = connector
        self._manager = manager
        self._handle = handle
        self._at_a_time = at_a_time
        self._stopping = stopping
        self._heartbeat_s, self._stalled_s = rhythm
        self._worker_id: int | None = None
        self._in_hand: dict[asyncio.Task[None], int | None] = {}
        self._look = asyncio.Event()
        self._is_unsure = False
        self._is_cancelled = False
        self._is_away = False
        self._in_contact_since = float("-inf")

    async def run(self) -> None:
        """Work until `stopping` is set and what is in hand has ended. What breaks besides is raised in a group."""
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(work()) for work in (self._live, self._listen, self._await_stop)]
            try:
                while not self._stopping.is_set():
                    await self._take()
                while self._in_hand:
                    await asyncio.wait(self._in_hand)
                await self._leave()
            finally:
                self._is_cancelled = True
                for task in self._in_hand:
                    task.cancel()
                await _end(beside)
                if self._in_hand:
                    await asyncio.wait(self._in_hand)

    async def _await_stop(self) -> None:
        await self._stopping.wait()
        self._look.set()

    async def _take(self) -> None:
        """Begin what can be begun, then wait for a reason to look again."""
        self._look.clear()
        pause = _POLL_S
        try:
            if self._worker_id is None:
                self._worker_id = await bounded(self._manager.register_worker())
                _logger.info("worker %r takes jobs, %d at a time", self._worker_id, self._at_a_time)
            if self._is_unsure:
                await self._put_back_what_never_arrived(self._worker_id)
            while not self._stopping.is_set() and len(self._in_hand) < self._at_a_time:
                stored = await bounded(self._manager.fetch_job([QUEUE], self._worker_id))
                if stored is None:
                    break
                self._begin(stored)
        except (ConnectorException, TimeoutError) as error:
            self._is_unsure = True
            pause = PAUSE_S
            if _state(error) == _GONE:
                # What it had in hand waits for the others already.
                _logger.warning("worker %r was silent for too long and registers anew", self._worker_id)
                self._worker_id = None
            else:
                self._lose_contact(error)
        await self._until_a_look(pause)

    async def _put_back_what_never_arrived(self, worker_id: int) -> None:
        """A job may have been given to this worker by an answer that was lost."""
        given = await bounded(self._manager.list_jobs_async(queue=QUEUE, status="doing", worker_id=worker_id))
        for stored in given:
            if stored.id not in self._in_hand.values():
                await self._put_back(stored)
        self._is_unsure = False

    async def _until_a_look(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._look.wait()

    def _begin(self, stored: StoredJob) -> None:
        # Not in the context of what is beside it, whose ids of the log are others.
        task = asyncio.get_running_loop().create_task(self._work(stored), context=unbound_context())
        self._in_hand[task] = stored.id
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        del self._in_hand[task]
        self._look.set()

    async def _work(self, stored: StoredJob) -> None:
        job = _understood(stored)
        if job is None:
            await self._settle(stored, self._finish)
            return
        with log_ids(deliberation_id=job.deliberation_id):
            if job.version > JOB_VERSION:
                if not stored.attempts:
                    known = JOB_VERSION
                    _logger.warning("a job of version %r is left to others: this version knows %r", job.version, known)
                await self._settle(stored, self._leave_to_others)
                return
            try:
                await self._handle(job)
            except asyncio.CancelledError:
                if self._is_cancelled:
                    await self._settle(stored, self._put_back)
                    raise
                _logger.exception("a job was cancelled by its own work and is over")
            except Exception:
                _logger.exception("a job broke and is over")
            await self._settle(stored, self._finish)

    async def _settle(self, stored: StoredJob, act: Callable[[StoredJob], Awaitable[None]]) -> None:
        """Do it, however long Postgres is away: a job in the hand of a living worker would be nobody else's for ever."""
        until = float("inf")
        while True:
            try:
                await act(stored)
                return
            except (ConnectorException, TimeoutError) as error:
                self._lose_contact(error)
            if self._stopping.is_set():
                until = min(until, time.monotonic() + PATIENCE_S)
            if self._is_cancelled or time.monotonic() >= until:
                _logger.warning(
                    "job %r could not be put down; another worker finds it when this one is gone", stored.id
                )
                return
            await asyncio.sleep(PAUSE_S)

    async def _finish(self, stored: StoredJob) -> None:
        try:
            await bounded(self._manager.finish_job(stored, Status.SUCCEEDED, delete_job=True))
        except ConnectorException as error:
            if _state(error) != _NOT_THERE:
                raise
            _logger.info("job %r was over already: another worker had taken it", stored.id)

    async def _put_back(self, stored: StoredJob) -> None:
        await self._put_back_at(stored, _AT_ONCE)

    async def _leave_to_others(self, stored: StoredJob) -> None:
        seconds = min(_UNKNOWN_S * 2 ** min(stored.attempts, 8), _UNKNOWN_AT_MOST_S)
        row = await bounded(self._connector.execute_query_one_async(_LATER, seconds=seconds))
        await self._put_back_at(stored, row["moment"])

    async def _put_back_at(self, stored: StoredJob, moment: datetime) -> None:
        try:
            await bounded(self._manager.retry_job(stored, retry_at=moment))
        except UniqueViolation:
            # One for the same deliberation waits already: that one goes on with it.
            await self._finish(stored)
        except ConnectorException as error:
            if _state(error) != _NOT_THERE:
                raise

    async def _live(self) -> None:
        while True:
            try:
                if self._worker_id is not None:
                    await bounded(self._manager.update_heartbeat(self._worker_id))
                    self._regain_contact()
                    # After an outage everybody has been silent: give them the time to be heard.
                    if time.monotonic() - self._in_contact_since > self._stalled_s:
                        await self._take_over()
            except (ConnectorException, TimeoutError) as error:
                self._lose_contact(error)
            await asyncio.sleep(self._heartbeat_s)

    async def _take_over(self) -> None:
        """Put back what dead workers had in hand. Only the eldest living worker does, so that no two do."""
        first = await bounded(self._connector.execute_query_one_async(_FIRST_ALIVE, seconds=self._stalled_s))
        if first["id"] != self._worker_id:
            return
        stalled = await bounded(self._manager.get_stalled_jobs(queue=QUEUE, seconds_since_heartbeat=self._stalled_s))
        for stored in stalled:
            await self._put_back(stored)
            _logger.warning(
                "a job of worker %r, which is silent, waits again",
                stored.worker_id,
                extra={"deliberation_id": stored.queueing_lock},
            )
            self._look.set()
        await bounded(self._manager.prune_stalled_workers(_FORGOTTEN_S))

    async def _listen(self) -> None:
        while True:
            try:
                await self._manager.listen_for_jobs(on_notification=self._on_notification, queues=[QUEUE])
            except ConnectorException as error:
                if not self._is_away:
                    _logger.warning(
                        "new jobs are not announced, and looked for instead: %s", reason_and_remedy(error)[0]
                    )
            await asyncio.sleep(PAUSE_S)

    async def _on_notification(self, **_: object) -> None:
        self._look.set()

    async def _leave(self) -> None:
        if self._worker_id is None:
            return
        try:
            await bounded(self._manager.unregister_worker(self._worker_id))
        except (ConnectorException, TimeoutError) as error:
            _logger.warning("worker %r ended without saying so: %s", self._worker_id, reason_and_remedy(error)[0])

    def _lose_contact(self, error: ConnectorException | TimeoutError) -> None:
        if not self._is_away:
            self._is_away = True
            _logger.warning("the queue is away and is waited for: %s. %s", *reason_and_remedy(error))

    def _regain_contact(self) -> None:
        if self._is_away:
            self._is_away = False
            self._in_contact_since = time.monotonic()
            _logger.info("the queue is back")


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    left = set(tasks)
    while left:
        # Again and again: in Python 3.11 one that comes together with a notification is lost in `asyncio.wait_for`.
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.1)


async def bounded(query: Awaitable[_T]) -> _T:
    """What `query` gives. Raises `TimeoutError` after `PATIENCE_S`."""
    async with asyncio.timeout(PATIENCE_S):
        return await query


def _understood(stored: StoredJob) -> Job | None:
    """The job, or None when it is none; of one of a later version only what every version has."""
    match stored.task_kwargs:
        case {"version": int(version), "deliberation_id": str(deliberation_id), "key_name": str() | None as key_name}:
            return Job(deliberation_id, key_name, version)
        case {"version": int(version)} if version > JOB_VERSION:
            return Job(str(stored.queueing_lock), None, version)
    _logger.error("job %r says nothing that could be worked on and is over", stored.id)
    return None


def _state(error: BaseException) -> str | None:
    """The SQLSTATE that Postgres gave, None without an answer."""
    state = getattr(error.__cause__, "sqlstate", None)
    return state if isinstance(state, str) else None


def reason_and_remedy(error: BaseException) -> tuple[str, str]:
    """What is wrong and what to do about it, without an address."""
    if isinstance(error, TimeoutError):
        return "it does not answer in time", "Check that Postgres runs."
    return _REFUSALS.get((_state(error) or "")[:2], (_UNREACHABLE, "Check that Postgres runs."))
