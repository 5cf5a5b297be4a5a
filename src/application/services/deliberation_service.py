"""Accepts deliberations, runs a bounded number of them at a time, and brings every one to its end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import (
    Commit,
    DeliberationReader,
    DeliberationRepository,
    Leases,
    Page,
)
from application.ports.halt_checker import HaltChecker
from application.ports.metrics import Metrics, NullMetrics
from application.services.batch import StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_run import DeliberationRun, end_interrupted
from application.services.event_feed import EventFeed
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationNotFoundError,
    QueueFullError,
    ServiceStoppingError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.event import Event
from domain.witness.entry import accepted, deliberation_ended, salt_at

__all__ = ["DeliberationService", "OrchestratorIdentity"]

_logger = logging.getLogger(__name__)
_LEASE_S = 10.0
_HEARTBEAT_S = 1.0
_EVENT_PAGE = 500
_RETRY_AFTER_S = 5
_MARKING_S = 5.0
# What a run that ended like this holds is what is stored; one that was stopped may have been asked to cancel elsewhere.
_SHOWN_AS_ENDED = frozenset({DeliberationStatus.COMPLETED, DeliberationStatus.INQUORATE})


@dataclass(frozen=True, slots=True)
class OrchestratorIdentity:
    """Who answers: the orchestrator's name, and whether its answers are simulated."""

    name: str
    simulated: bool


class DeliberationService:
    """Every accepted deliberation is stored before it is acknowledged and ends in exactly one terminal state.

    At most `max_running` run at a time and `max_queued` wait; more are refused. Use as `async with`, or `start` and `stop`.
    """

    def __init__(
        self,
        *,
        fan_out: ConcurrentDeliberationService,
        repository: DeliberationRepository,
        reader: DeliberationReader,
        leases: Leases,
        halt_checker: HaltChecker,
        orchestrator: OrchestratorIdentity,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        max_running: int = 10,
        max_queued: int = 100,
        takes_over: bool = True,
    ) -> None:
        self.feed = EventFeed()
        self._fan_out = fan_out
        self._repository = repository
        self._reader = reader
        self._leases = leases
        self._halt = halt_checker
        self._orchestrator = orchestrator
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._clock = clock if clock is not None else SystemClock()
        self._max_running = max_running
        self._max_queued = max_queued
        self._takes_over = takes_over
        self._owner = str(uuid4())
        self._queue: deque[Deliberation] = deque()
        self._accepting = 0
        self._running: dict[str, DeliberationRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._heart: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def running_count(self) -> int:
        """How many deliberations run in this process."""
        return len(self._running)

    @property
    def queued_count(self) -> int:
        """How many wait in this process."""
        return len(self._queue) + self._accepting

    @property
    def is_stopping(self) -> bool:
        """Whether the service takes no new work."""
        return self._stopping

    async def start(self) -> None:
        """Take over what nobody works on and begin. Raises `DependencyUnavailableError` when the store is away."""
        if self._takes_over:
            await self._take_over()
        self._heart = asyncio.create_task(self._beat(), name="deliberation-heartbeat")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Take no more work, give what runs `drain_s` seconds, end the rest as interrupted, leave the queue to others."""
        self._stopping = True
        if self._heart is not None:
            self._heart.cancel()
        waiting = [deliberation.id for deliberation in self._queue]
        self._queue.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=drain_s)
        for run in list(self._running.values()):
            run.stop(StopCause.SHUTDOWN)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_MARKING_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if waiting:
            await self._leases.release(waiting, owner=self._owner)
        self.feed.announce_all()

    async def submit(self, specification: Specification, *, key_name: str | None = None) -> Deliberation:
        """Accept a deliberation: stored when this returns.

        Raises `InvalidSpecificationError`, `SystemHaltedError`, `QueueFullError`, `ServiceStoppingError` and
        `DependencyUnavailableError`; in each case nothing was accepted.
        """
        if self._stopping:
            raise ServiceStoppingError
        now = self._clock.now()
        deliberation = Deliberation.accept(
            specification,
            at=now,
            orchestrator=self._orchestrator.name,
            simulated=self._orchestrator.simulated,
            key_name=key_name,
        )
        if await self._halt.is_halted():
            raise SystemHaltedError(await self._halt.get_halt_reason())
        if self.queued_count >= self._max_queued and self.running_count >= self._max_running:
            self._metrics.pool_exhausted()
            raise QueueFullError(waiting=self.queued_count, limit=self._max_queued, retry_after_s=_RETRY_AFTER_S)
        self._accepting += 1
        try:
            entry = accepted(deliberation)
            deliberation = replace(deliberation, question_salt=salt_at(entry.salts, 0))
            await self._repository.add(deliberation, entry, owner=self._owner, lease_s=_LEASE_S)
        finally:
            self._accepting -= 1
        self._queue.append(deliberation)
        self._start_next()
        return deliberation

    async def get(self, deliberation_id: str, *, key_name: str | None = None) -> Deliberation:
        """The deliberation as it is committed. Raises `DeliberationNotFoundError`, also when it belongs to another key."""
        found = await self._reader.get(deliberation_id)
        if found is None or (key_name is not None and found.key_name != key_name):
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        return found

    async def page(
        self, *, status: DeliberationStatus | None, key_name: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Deliberations, newest first."""
        return await self._reader.page(status=status, key_name=key_name, limit=limit, cursor=cursor)

    async def cancel(self, deliberation_id: str, *, key_name: str | None = None) -> Deliberation:
        """Ask for the end of a deliberation; whoever works on it stops within a heartbeat (1 s), this process at once.

        Raises `DeliberationNotFoundError`, and `DeliberationEndedError` when it has ended.
        """
        found = await self.get(deliberation_id, key_name=key_name)
        if found.status.is_terminal:
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=found.status.value)
        await self._leases.request_cancel(deliberation_id)
        await self._cancel_here([deliberation_id])
        return await self.get(deliberation_id)

    async def wait(self, deliberation_id: str, *, timeout_s: float | None) -> Deliberation:
        """The deliberation once it ended, or as it is after `timeout_s` seconds."""
        run: DeliberationRun | None = None
        with self.feed.listen(deliberation_id) as news:
            try:
                async with asyncio.timeout(timeout_s):
                    while True:
                        news.clear()
                        run = self._running.get(deliberation_id) or run
                        # Reading a deliberation is dear beside an event of it, so nothing is read while it is known to run.
                        if not self._is_here(deliberation_id):
                            if run is not None and run.deliberation.status in _SHOWN_AS_ENDED:
                                return run.deliberation
                            found = await self.get(deliberation_id)
                            if found.status.is_terminal or self._stopping:
                                return found
                        await self._next_news(news)
            except TimeoutError:
                return await self.get(deliberation_id)

    async def events(self, deliberation_id: str, *, after: int = 0) -> AsyncIterator[Event | None]:
        """Every event with a greater sequence than `after`, as it is committed, up to the terminal one.

        Yields None when nothing happened for a heartbeat (1 s), so that a caller can notice a reader that has gone away. Ends
        early when the service stops.
        """
        with self.feed.listen(deliberation_id) as news:
            while True:
                news.clear()
                page = await self._reader.events(deliberation_id, after=after, limit=_EVENT_PAGE)
                for event in page:
                    after = event.sequence
                    yield event
                    if event.is_terminal:
                        return
                if len(page) == _EVENT_PAGE:
                    continue
                if self._stopping or (not page and await self._has_ended_before(deliberation_id, after)):
                    return
                if not await self._next_news(news):
                    yield None

    async def _has_ended_before(self, deliberation_id: str, after: int) -> bool:
        """Whether a reader that asks for more after the terminal event would wait for ever."""
        found = await self._reader.get(deliberation_id)
        if found is None or not found.status.is_terminal:
            return False
        return not await self._reader.events(deliberation_id, after=after, limit=1)

    async def _next_news(self, news: asyncio.Event) -> bool:
        """Wait for an announcement, or for one heartbeat, since another process may have written without announcing."""
        try:
            async with asyncio.timeout(_HEARTBEAT_S):
                await news.wait()
        except TimeoutError:
            return False
        return True

    def _is_here(self, deliberation_id: str) -> bool:
        return deliberation_id in self._running or any(waits.id == deliberation_id for waits in self._queue)

    def _start_next(self) -> None:
        while self._queue and len(self._running) < self._max_running and not self._stopping:
            deliberation = self._queue.popleft()
            run = DeliberationRun(
                deliberation, fan_out=self._fan_out, repository=self._repository, feed=self.feed, clock=self._clock
            )
            self._running[deliberation.id] = run
            task = asyncio.create_task(self._run(run), name=f"deliberation-{deliberation.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, run: DeliberationRun) -> None:
        deliberation_id = run.deliberation.id
        try:
            ended = await run.run()
            started = ended.started_at or ended.created_at
            finished = ended.finished_at or started
            self._metrics.deliberation_ended(ended.status, (finished - started).total_seconds())
        except Exception:
            # Its lease runs out, so whoever finds the store again, this process included, marks it as interrupted.
            _logger.exception(
                "deliberation %s could not be brought to its end",
                deliberation_id,
                extra={"deliberation_id": deliberation_id},
            )
        finally:
            del self._running[deliberation_id]
            self.feed.announce(deliberation_id)
            self._start_next()

    async def _cancel_here(self, deliberation_ids: Sequence[str]) -> None:
        for deliberation_id in deliberation_ids:
            if deliberation_id in self._running:
                self._running[deliberation_id].stop(StopCause.CANCELLED)
                continue
            waiting = next((waits for waits in self._queue if waits.id == deliberation_id), None)
            if waiting is not None:
                self._queue.remove(waiting)
                now = self._clock.now()
                ended = waiting.end(DeliberationStatus.CANCELLED, at=now, reason="cancelled on request")
                entry = deliberation_ended(ended, cause=ended.reason)
                await self._repository.append(Commit(deliberation_id, [entry], ended))
                self._metrics.deliberation_ended(ended.status, 0.0)
                self.feed.announce(deliberation_id)

    async def _beat(self) -> None:
        """Renew the leases, hear of cancellations asked for elsewhere, and take over what nobody works on."""
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            held = [*self._running, *(waiting.id for waiting in self._queue)]
            try:
                if held:
                    await self._cancel_here(await self._leases.renew(held, owner=self._owner, lease_s=_LEASE_S))
                if self._takes_over:
                    await self._take_over()
            except DependencyUnavailableError as error:
                _logger.warning("the store is away, leases are not renewed: %s", error)

    async def _take_over(self) -> None:
        room = self._max_queued + self._max_running - self.queued_count - self.running_count
        if room <= 0:
            return
        for deliberation in await self._leases.claim(owner=self._owner, lease_s=_LEASE_S, limit=room):
            if self._is_here(deliberation.id):
                continue
            if deliberation.status is DeliberationStatus.QUEUED:
                self._queue.append(deliberation)
                if deliberation.cancel_requested:
                    await self._cancel_here([deliberation.id])
                continue
            _logger.warning(
                "deliberation %s was interrupted", deliberation.id, extra={"deliberation_id": deliberation.id}
            )
            now = self._clock.now()
            await self._repository.append(end_interrupted(deliberation, at=now))
            self._metrics.deliberation_ended(DeliberationStatus.FAILED, 0.0)
            self.feed.announce(deliberation.id)
        self._start_next()
