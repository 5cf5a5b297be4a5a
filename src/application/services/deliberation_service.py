"""Accepts deliberations, shows them as they are committed, and passes them to whoever works on them.

It is one file, because accepting, counting and cancelling each look at the same three in turn: the store, the queue, and the worker of
this process, which may hold what neither of the others says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import (
    Claim,
    DeliberationReader,
    DeliberationRepository,
    DeliberationStore,
    Leases,
    Page,
)
from application.ports.halt_checker import HaltChecker
from application.ports.idempotency import IdempotencyKey
from application.ports.metrics import Metrics, NullMetrics
from application.ports.process_registry import ProcessRegistry
from application.ports.tracing import Tracer
from application.ports.work_queue import Job, WorkQueue
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_worker import (
    LEASE_S,
    DeliberationWorker,
    OrchestratorIdentity,
    cancelled_before_its_start,
)
from application.services.event_feed import EventFeed
from application.services.following import Following
from application.services.text_synthesis import TextSynthesis
from application.services.topic_balance import TopicBalance
from application.services.track_record_service import TrackRecordService
from application.services.worth_service import WorthService
from domain.analysis.control import control_of
from domain.errors.conclave_error import ConclaveError
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
from domain.models.search import Search
from domain.witness.entry import accepted, salt_at

__all__ = ["DeliberationService", "OrchestratorIdentity"]

_logger = logging.getLogger(__name__)
_RETRY_AFTER_S = 5
_PUT_AGAIN_S = 0.5
# Longer than a store that is there takes for an end.
_ENDING_S = 3.0


class DeliberationService:
    """Every accepted deliberation is stored before it is acknowledged, and given to the queue.

    At most `max_queued` wait there while no worker has room; more are refused. With a `worker`, this process works on them too.
    Use `start` and `stop`.
    """

    def __init__(
        self,
        *,
        repository: DeliberationRepository,
        reader: DeliberationReader,
        leases: Leases,
        queue: WorkQueue,
        halt_checker: HaltChecker,
        orchestrator: OrchestratorIdentity,
        worker: DeliberationWorker | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        max_queued: int = 100,
        process: str = "",
        record: TrackRecordService | None = None,
        topics: TopicBalance | None = None,
    ) -> None:
        """`process` is the name under which a process without a worker holds what it cancels.

        `record` knows what votes weigh by it; without one each is a whole one.
        """
        self._record = record
        self._topics = topics
        self.feed = EventFeed() if worker is None else worker.feed
        self._repository = repository
        self._reader = reader
        self._leases = leases
        self._queue = queue
        self._halt = halt_checker
        self._orchestrator = orchestrator
        self._worker = worker
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._clock = clock if clock is not None else SystemClock()
        self._max_queued = max_queued
        self._process = process
        self._accepting = 0
        self._queued = 0
        self._cancels = 0
        self._stopping = False
        self._following = Following(reader, self.feed, worker=worker, is_stopping=lambda: self._stopping)
        self._later: set[asyncio.Task[None]] = set()

    @classmethod
    def with_worker(
        cls,
        *,
        fan_out: ConcurrentDeliberationService,
        store: DeliberationStore,
        queue: WorkQueue,
        halt_checker: HaltChecker,
        orchestrator: OrchestratorIdentity,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        registry: ProcessRegistry | None = None,
        tracer: Tracer | None = None,
        max_running: int = 10,
        max_queued: int = 100,
        takes_over: bool = True,
        queued_sweep_s: float = 1.0,
        worth: WorthService | None = None,
        texts: TextSynthesis | None = None,
        record: TrackRecordService | None = None,
        topics: TopicBalance | None = None,
    ) -> DeliberationService:
        """One that works on what it accepts, and with `takes_over` on what others left, `max_running` at a time."""
        worker = DeliberationWorker(
            fan_out=fan_out,
            commits=store,
            leases=store,
            queue=queue,
            halt_checker=halt_checker,
            orchestrator=orchestrator,
            metrics=metrics,
            clock=clock,
            registry=registry,
            tracer=tracer,
            max_running=max_running,
            takes_over=takes_over,
            queued_sweep_s=queued_sweep_s,
            worth=worth,
            texts=texts,
        )
        return cls(
            repository=store,
            reader=store,
            leases=store,
            queue=queue,
            halt_checker=halt_checker,
            orchestrator=orchestrator,
            worker=worker,
            metrics=metrics,
            clock=clock,
            max_queued=max_queued,
            record=record,
            topics=topics,
        )

    @property
    def running_count(self) -> int:
        """How many deliberations run in this process."""
        return 0 if self._worker is None else self._worker.running_count

    @property
    def last_outage(self) -> DependencyUnavailableError | None:
        """Why work was last left in this process with a store that stayed away; None where that never happened."""
        return None if self._worker is None else self._worker.last_outage

    @property
    def is_idle(self) -> bool:
        """Whether this process has nothing to work on."""
        return self._accepting == 0 and (self._worker is None or self._worker.is_idle)

    @property
    def queued_count(self) -> int:
        """How many waited for a worker when they were last counted."""
        return self._queued

    async def count_queued(self) -> int:
        """How many wait for a worker, those that are just being accepted included. Raises `DependencyUnavailableError`."""
        waiting = await self._queue.waiting_count()
        if self._worker is not None:
            # One that was just handed out is no longer in the queue, and not at work yet.
            waiting = max(waiting, self._worker.expected_count) + self._worker.held_back_count
        self._queued = waiting + self._accepting
        return self._queued

    @property
    def is_stopping(self) -> bool:
        """Whether the service takes no new work."""
        return self._stopping

    async def start(self) -> None:
        """Begin. Raises `DependencyUnavailableError` when the store is away."""
        if self._worker is not None:
            await self._worker.start()

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Take no more work, let calls in flight be finished for `drain_s` seconds, and leave the rest to be gone on with."""
        self._stopping = True
        self.feed.announce_all()
        if self._worker is not None:
            await self._worker.stop(drain_s=drain_s)
        for later in self._later:
            later.cancel()
        await asyncio.gather(*self._later, return_exceptions=True)
        self.feed.announce_all()

    async def submit(
        self,
        specification: Specification,
        *,
        key_name: str | None = None,
        idempotency: IdempotencyKey | None = None,
    ) -> Deliberation:
        """Accept a deliberation: stored when this returns.

        Raises `InvalidSpecificationError`, `SystemHaltedError`, `QueueFullError`, `ServiceStoppingError`,
        `IdempotencyKeyTakenError` and `DependencyUnavailableError`; in each case nothing was accepted.
        """
        if self._stopping:
            raise ServiceStoppingError
        if self._record is not None:
            specification = await self._record.weighed(specification, key_name=key_name)
        deliberation = Deliberation.accept(
            specification,
            at=self._clock.now(),
            orchestrator=self._orchestrator.name,
            simulated=self._orchestrator.simulated,
            key_name=key_name,
        )
        if await self._halt.is_halted():
            raise SystemHaltedError(await self._halt.get_halt_reason())
        await self._require_room()
        deliberation = await self._accept(deliberation, idempotency)
        if specification.control is not None:
            await self._accept_control(deliberation)
        if self._topics is not None:
            await self._topics.note(specification.topic_origin)
        return deliberation

    async def _accept_control(self, deliberation: Deliberation) -> None:
        """Accept the control of what was just accepted, which stands whatever becomes of this."""
        try:
            await self._require_room()
            await self._accept(control_of(deliberation), None)
        except ConclaveError as error:
            facts = {"deliberation_id": deliberation.id}
            _logger.warning("deliberation %s has no control: %s", deliberation.id, error, extra=facts)

    async def _accept(self, deliberation: Deliberation, idempotency: IdempotencyKey | None) -> Deliberation:
        """Store it, and give it to the queue."""
        self._accepting += 1
        try:
            entry = accepted(deliberation)
            deliberation = replace(deliberation, question_salt=salt_at(entry.salts, 0))
            lease = None if self._worker is None else self._worker.new_lease()
            await self._repository.add(deliberation, entry, lease=lease, lease_s=LEASE_S, idempotency=idempotency)
        finally:
            self._accepting -= 1
        if self._worker is not None and lease is not None:
            self._worker.expect(Claim(deliberation, lease))
        await self._give_to_queue(deliberation)
        return deliberation

    async def _require_room(self) -> None:
        waiting = await self.count_queued()
        room = 0 if self._worker is None else max(self._worker.max_running - self._worker.running_count, 0)
        if waiting >= self._max_queued + room:
            self._metrics.pool_exhausted()
            raise QueueFullError(waiting=waiting, limit=self._max_queued, retry_after_s=_RETRY_AFTER_S)

    async def _give_to_queue(self, deliberation: Deliberation) -> None:
        job = Job(deliberation.id, deliberation.key_name)
        try:
            await self._queue.put(job)
        except DependencyUnavailableError as error:
            # It is stored, so it is accepted. Workers look for what nobody holds, but seldom; this process dies seldom.
            facts = {"deliberation_id": job.deliberation_id}
            _logger.warning("deliberation %s is not in the queue yet: %s", job.deliberation_id, error, extra=facts)
            later = asyncio.create_task(self._give_later(job), name="put-later")
            self._later.add(later)
            later.add_done_callback(self._later.discard)

    async def _give_later(self, job: Job) -> None:
        while True:
            await asyncio.sleep(_PUT_AGAIN_S)
            try:
                await self._queue.put(job)
                return
            except DependencyUnavailableError as error:
                _logger.debug("deliberation %s is still not in the queue: %s", job.deliberation_id, error)

    async def get(self, deliberation_id: str, *, key_name: str | None = None) -> Deliberation:
        """The deliberation as it is committed. Raises `DeliberationNotFoundError`, also when it belongs to another key."""
        found = await self._reader.get(deliberation_id)
        if found is None or (key_name is not None and found.key_name != key_name):
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        return found

    async def page(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> Page:
        """Deliberations, newest first; of those of that key, in that state, from that origin, and that `search` matches."""
        return await self._reader.page(
            status=status, key_name=key_name, limit=limit, cursor=cursor, origin=origin, search=search
        )

    async def count(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> int:
        """How many deliberations all pages together have now."""
        return await self._reader.count(status=status, key_name=key_name, origin=origin, search=search)

    async def cancel(self, deliberation_id: str, *, key_name: str | None = None) -> Deliberation:
        """Ask for the end of a deliberation; whoever works on it stops within a heartbeat (1 s), this process at once.

        Raises `DeliberationNotFoundError`, and `DeliberationEndedError` when it has ended, or is found to have ended otherwise by
        now. What is at work in another process may still come to its own end before it hears of this.
        """
        found = await self.get(deliberation_id, key_name=key_name)
        if found.status.is_terminal:
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=found.status.value)
        await self._leases.request_cancel(deliberation_id)
        if self._worker is None or not await self._worker.cancel(deliberation_id):
            await self._cancel_unheld(found)
        run = None if self._worker is None else self._worker.run_of(deliberation_id)
        if run is not None and run.is_decided:
            found = await self.wait(deliberation_id, timeout_s=_ENDING_S)
        else:
            found = await self.get(deliberation_id)
        if found.status.is_terminal and found.status is not DeliberationStatus.CANCELLED:
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=found.status.value)
        return found

    async def _cancel_unheld(self, deliberation: Deliberation) -> None:
        """End one that nobody has begun. One that somebody began ends where it is at work, or is gone on with to be ended."""
        self._cancels += 1
        process = self._process if self._worker is None else self._worker.new_lease().partition("/")[0]
        lease = f"{process}/cancel-{self._cancels}"
        claim = await self._leases.claim(deliberation.id, lease=lease, lease_s=LEASE_S)
        if claim is None:
            return
        if claim.deliberation.status is DeliberationStatus.QUEUED:
            await self._queue.withdraw(deliberation.id)
            await self._repository.append(cancelled_before_its_start(claim, at=self._clock.now()))
            self._metrics.deliberation_ended(DeliberationStatus.CANCELLED, 0.0)
            self.feed.announce(deliberation.id)
            return
        await self._leases.release({deliberation.id: lease})
        await self._give_to_queue(deliberation)

    async def wait(self, deliberation_id: str, *, timeout_s: float | None) -> Deliberation:
        """The deliberation once it ended, or as it is after `timeout_s` seconds. Raises `DeliberationNotFoundError`."""
        return await self._following.wait(deliberation_id, timeout_s=timeout_s)

    def events(self, deliberation_id: str, *, after: int = 0) -> AsyncIterator[Event | None]:
        """As in `Following`."""
        return self._following.events(deliberation_id, after=after)

    def gathered_events(
        self, deliberation_id: str, *, after: int = 0, gather: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[Sequence[Event], None]:
        """As in `Following`."""
        return self._following.gathered_events(deliberation_id, after=after, gather=gather)
