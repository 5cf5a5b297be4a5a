"""The work queue of a single process: it lives and dies with it, and the database refills it at the next start."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from application.ports.work_queue import JOB_VERSION, Job
from application.services.log_ids import log_ids, unbound_context

__all__ = ["EmbeddedQueue"]

_logger = logging.getLogger(__name__)


class _Consumer:
    """One call of `serve`: how much it may have in hand, and what it has."""

    def __init__(self, handle: Callable[[Job], Awaitable[None]], at_a_time: int, stopping: asyncio.Event) -> None:
        self.handle = handle
        self.at_a_time = at_a_time
        self.stopping = stopping
        self.in_hand: set[asyncio.Task[None]] = set()
        self.is_cancelled = False

    @property
    def has_room(self) -> bool:
        return len(self.in_hand) < self.at_a_time and not self.stopping.is_set() and not self.is_cancelled


class EmbeddedQueue:
    """A `WorkQueue` within one event loop: every step costs the same however many jobs wait.

    A job begins in the step of the loop after the one that put it, when a consumer has room.
    """

    def __init__(self) -> None:
        # The caller whose turn it is stands first, and goes to the end with each job.
        self._lines: OrderedDict[str | None, OrderedDict[str, Job]] = OrderedDict()
        # Those that cannot begin now: another one for the same deliberation is in hand, or their version is unknown.
        self._set_aside: dict[str, Job] = {}
        self._callers: dict[str, str | None] = {}
        self._in_hand: set[str] = set()
        self._consumers: OrderedDict[_Consumer, None] = OrderedDict()

    async def put(self, job: Job) -> None:
        """See `WorkQueue.put`."""
        if job.deliberation_id in self._callers or job.deliberation_id in self._set_aside:
            return
        if job.version > JOB_VERSION:
            _logger.warning(
                "a job of version %r is left to others: this version knows %r",
                job.version,
                JOB_VERSION,
                extra={"deliberation_id": job.deliberation_id},
            )
            self._set_aside[job.deliberation_id] = job
        elif job.deliberation_id in self._in_hand:
            self._set_aside[job.deliberation_id] = job
        else:
            self._line_up(job)
            self._hand_out()

    async def withdraw(self, deliberation_id: str) -> bool:
        """See `WorkQueue.withdraw`."""
        if self._set_aside.pop(deliberation_id, None) is not None:
            return True
        if deliberation_id not in self._callers:
            return False
        caller = self._callers.pop(deliberation_id)
        line = self._lines[caller]
        del line[deliberation_id]
        if not line:
            del self._lines[caller]
        return True

    async def waiting_count(self) -> int:
        """See `WorkQueue.waiting_count`."""
        return len(self._callers) + len(self._set_aside)

    async def serve(self, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int, stopping: asyncio.Event) -> None:
        """See `WorkQueue.serve`."""
        consumer = _Consumer(handle, at_a_time, stopping)
        self._consumers[consumer] = None
        self._hand_out()
        try:
            await stopping.wait()
            while consumer.in_hand:
                await asyncio.wait(consumer.in_hand)
        finally:
            del self._consumers[consumer]
            if consumer.in_hand:
                consumer.is_cancelled = True
                for task in consumer.in_hand:
                    task.cancel()
                await asyncio.wait(consumer.in_hand)

    def _line_up(self, job: Job) -> None:
        self._lines.setdefault(job.key_name, OrderedDict())[job.deliberation_id] = job
        self._callers[job.deliberation_id] = job.key_name

    def _next(self) -> Job:
        caller, line = next(iter(self._lines.items()))
        _, job = line.popitem(last=False)
        del self._callers[job.deliberation_id]
        if line:
            self._lines.move_to_end(caller)
        else:
            del self._lines[caller]
        return job

    def _hand_out(self) -> None:
        for consumer in tuple(self._consumers):
            while self._lines and consumer.has_room:
                self._begin(consumer, self._next())

    def _begin(self, consumer: _Consumer, job: Job) -> None:
        self._in_hand.add(job.deliberation_id)
        # Not in the context of whoever put it, who may be another caller.
        task = asyncio.get_running_loop().create_task(
            self._work(consumer, job), name=f"job {job.deliberation_id}", context=unbound_context()
        )
        consumer.in_hand.add(task)
        task.add_done_callback(lambda ended: self._over(consumer, job, ended))

    async def _work(self, consumer: _Consumer, job: Job) -> None:
        with log_ids(deliberation_id=job.deliberation_id):
            try:
                await consumer.handle(job)
            except asyncio.CancelledError:
                if not consumer.is_cancelled:
                    _logger.exception("a job was cancelled by its own work and is over")
                raise
            except Exception:
                _logger.exception("a job broke and is over")

    def _over(self, consumer: _Consumer, job: Job, task: asyncio.Task[None]) -> None:
        consumer.in_hand.discard(task)
        self._in_hand.discard(job.deliberation_id)
        aside = self._set_aside.get(job.deliberation_id)
        if aside is not None and aside.version <= JOB_VERSION:
            self._line_up(self._set_aside.pop(job.deliberation_id))
        elif aside is None and task.cancelled() and consumer.is_cancelled:
            self._line_up(job)
        self._hand_out()
