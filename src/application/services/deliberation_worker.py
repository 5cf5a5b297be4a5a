"""Works on deliberations: takes them from the queue, holds them under leases, and goes on where another worker left off.

It is one file, because taking, renewing, sweeping, cancelling and stopping all decide by the same few tables of what this process holds:
what it expects, runs, keeps at the door and has refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import Claim, Commit, Commits, Leases
from application.ports.halt_checker import HaltChecker
from application.ports.metrics import Metrics, NullMetrics
from application.ports.process_registry import NoRegistry, ProcessRegistry
from application.ports.tracing import NullTracer, Tracer
from application.ports.work_queue import Job, WorkQueue
from application.services.batch import StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_run import DeliberationRun
from application.services.event_feed import EventFeed
from application.services.key_turns import KeyTurns
from application.services.log_ids import log_ids
from application.services.text_synthesis import TextSynthesis
from application.services.worth_service import WorthService
from domain.errors.deliberation import DeliberationEndedError, LeaseLostError, RecordMismatchError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.witness.entry import deliberation_ended

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["LEASE_S", "DeliberationWorker", "OrchestratorIdentity", "cancelled_before_its_start"]

_logger = logging.getLogger(__name__)

LEASE_S = 5.0
"""A worker that renews nothing for so long is taken for dead, and others go on with what it held."""

_HEARTBEAT_S = 1.0
_DOOR_S = 0.25
_REFUSED_S = 60.0
_MARKING_S = 5.0
_SWEEP = 1_000
# Problems of one outage that are told: some take turns, and some say each time something else.
_MOST_SAID = 5


@dataclass(frozen=True, slots=True)
class OrchestratorIdentity:
    """Who answers: the orchestrator's name, and whether its answers are simulated."""

    name: str
    simulated: bool


class DeliberationWorker:
    """Runs at most `max_running` deliberations at a time, each under a lease that it renews, and none that another holds.

    What a dead worker held is gone on with: at once where its death is known, else when its lease has run out. Deliberations that
    were accepted for another orchestrator are left to workers that have it. `start`, then `stop`; belongs to one event loop.
    """

    def __init__(
        self,
        *,
        fan_out: ConcurrentDeliberationService,
        commits: Commits,
        leases: Leases,
        queue: WorkQueue,
        halt_checker: HaltChecker,
        orchestrator: OrchestratorIdentity,
        feed: EventFeed | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        registry: ProcessRegistry | None = None,
        tracer: Tracer | None = None,
        max_running: int = 10,
        takes_over: bool = True,
        queued_sweep_s: float = 1.0,
        worth: WorthService | None = None,
        texts: TextSynthesis | None = None,
    ) -> None:
        """`queued_sweep_s` is how often it looks for what should be in the queue and may not be; what was begun and is held by
        nobody is looked for each second. `worth` is told of what ended, so that nobody who reads it first has to wait;
        `texts` finds out what free texts come to.
        """
        self.feed = feed if feed is not None else EventFeed()
        self.max_running = max_running
        self._fan_out = fan_out
        self._commits = commits
        self._leases = leases
        self._queue = queue
        self._halt = halt_checker
        self._orchestrator = orchestrator
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._clock = clock if clock is not None else SystemClock()
        self._turns = KeyTurns()
        self._registry = registry if registry is not None else NoRegistry()
        self._tracer = tracer if tracer is not None else NullTracer()
        self._takes_over = takes_over
        self._queued_sweep_s = queued_sweep_s
        self._worth = worth
        self._texts = texts
        self._swept_queued_at = float("-inf")
        self._numbers = itertools.count(1)
        self._certain_until: dict[str, float] = {}
        self._expected: dict[str, Claim] = {}
        self._running: dict[str, DeliberationRun] = {}
        self._at_the_door: set[str] = set()
        # By id, when it is looked at again: what was refused may be mended, or become another worker's.
        self._refused: dict[str, float] = {}
        self.last_outage: DependencyUnavailableError | None = None
        """Why the last of those was left that could not be brought to their ends because the store stayed away."""
        self._stopping = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._beating: list[asyncio.Task[None]] = []

    @property
    def running_count(self) -> int:
        """How many deliberations run in this process."""
        return len(self._running)

    @property
    def expected_count(self) -> int:
        """How many were accepted in this process and have not begun."""
        return len(self._expected)

    @property
    def held_back_count(self) -> int:
        """How many were taken from the queue and wait until calls may begin again."""
        return len(self._at_the_door)

    @property
    def is_idle(self) -> bool:
        """Whether it holds nothing."""
        return not (self._running or self._expected or self._at_the_door)

    def new_lease(self) -> str:
        """A lease of this process that nobody used before."""
        lease = f"{self._registry.own}/{next(self._numbers)}"
        # It is about to be asked for, so it stands for at least so long from now on if it is given at all.
        self._certain_until[lease] = self._clock.monotonic() + LEASE_S
        return lease

    def is_certain(self, lease: str) -> bool:
        """Whether nobody else can have claimed by now what is held under it; not after a freeze of the process, say."""
        return self._clock.monotonic() < self._certain_until.get(lease, float("-inf"))

    async def renew(self, deliberation_id: str, lease: str) -> None:
        """Renew that lease now, or wait a little where the store is away; what is held no longer is suspended."""
        try:
            await self._renew_these({deliberation_id: lease})
        except DependencyUnavailableError:
            await asyncio.sleep(_DOOR_S)

    async def start(self) -> None:
        """Begin to work. Raises `DependencyUnavailableError` when the store is away."""
        if self._takes_over:
            await self._sweep()
        self._serving = asyncio.create_task(
            self._queue.serve(self._handle, at_a_time=self.max_running, stopping=self._stopping), name="worker-serve"
        )
        self._beating = [asyncio.create_task(self._each_second(self._renew, "renew leases"), name="worker-heartbeat")]
        if self._takes_over:
            sweeping = self._each_second(self._sweep, "look for what nobody works on")
            self._beating.append(asyncio.create_task(sweeping, name="worker-sweep"))

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Begin nothing more, let calls in flight be finished for `drain_s` seconds, and leave the rest to others."""
        self._stopping.set()
        for run in list(self._running.values()):
            run.wind_down()
        serving = self._serving
        if serving is not None:
            await asyncio.wait([serving], timeout=drain_s)
            for run in list(self._running.values()):
                run.stop(StopCause.SUSPENDED)
            await asyncio.wait([serving], timeout=_MARKING_S)
            # Whoever has to be cancelled lets nothing go by itself.
            held = self._held()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        else:
            held = self._held()
        for task in self._beating:
            task.cancel()
        await asyncio.gather(*self._beating, return_exceptions=True)
        self._expected.clear()
        if held:
            try:
                await self._leases.release(held)
            except DependencyUnavailableError as error:
                _logger.warning("what was left is free when its leases have run out: %s", error)

    def expect(self, claim: Claim) -> None:
        """Hold what was accepted in this process until its job comes."""
        self._tracer.accepted(claim.deliberation.id)
        self._expected[claim.deliberation.id] = claim

    def is_here(self, deliberation_id: str) -> bool:
        """Whether it is held in this process."""
        return deliberation_id in self._running or deliberation_id in self._expected

    def run_of(self, deliberation_id: str) -> DeliberationRun | None:
        """The deliberation at work, if it is here."""
        return self._running.get(deliberation_id)

    async def cancel(self, deliberation_id: str) -> bool:
        """End it early if it is held here; whether it was."""
        if deliberation_id in self._running:
            self._running[deliberation_id].stop(StopCause.CANCELLED)
            return True
        claim = self._expected.pop(deliberation_id, None)
        if claim is None:
            return False
        await self._queue.withdraw(deliberation_id)
        try:
            await self._commits.append(cancelled_before_its_start(claim, at=self._clock.now()))
        except BaseException:
            # Nothing is known to be stored, so it is held as before; the request to cancel is stored, and is heard of again.
            self._expected[deliberation_id] = claim
            await self._queue.put(Job(deliberation_id, claim.deliberation.key_name))
            raise
        self._metrics.deliberation_ended(DeliberationStatus.CANCELLED, 0.0)
        self.feed.announce(deliberation_id)
        return True

    async def _handle(self, job: Job) -> None:
        """Work on one deliberation until it ended, is held by another, or has to be left."""
        claim = await self._hold(job.deliberation_id)
        if claim is None:
            return
        deliberation_id = claim.deliberation.id
        run = DeliberationRun(
            claim,
            fan_out=self._fan_out,
            commits=self._commits,
            feed=self.feed,
            clock=self._clock,
            tracer=self._tracer,
            holding=_LeaseOf(self, claim),
            turns=self._turns,
            texts=self._texts,
        )
        self._running[deliberation_id] = run
        if self._stopping.is_set():
            run.wind_down()
        if claim.deliberation.cancel_requested:
            run.stop(StopCause.CANCELLED)
        # Measured where that can be: the clock of the day may be set meanwhile.
        began = self._clock.monotonic() if claim.deliberation.status is DeliberationStatus.QUEUED else None
        try:
            agents = len(claim.deliberation.specification.roster.agents)
            with (
                log_ids(deliberation_id=deliberation_id),
                self._tracer.deliberation(deliberation_id, agents=agents) as span,
            ):
                ended = await run.run()
                span.ended_as(ended.status.value)
            if ended.status.is_terminal:
                measured_s = None if began is None else self._clock.monotonic() - began
                self._metrics.deliberation_ended(ended.status, _recorded_s(ended) if measured_s is None else measured_s)
                await self._note_worth(ended)
            else:
                await self._leases.release({deliberation_id: claim.lease})
        except Exception as error:  # noqa: BLE001 - it is logged, and one deliberation's trouble is not another's
            self._note_left(deliberation_id, error)
        finally:
            del self._running[deliberation_id]
            self.feed.announce(deliberation_id)

    async def _note_worth(self, ended: Deliberation) -> None:
        """Assess what ended; it has ended all the same where its history cannot be read now."""
        if self._worth is not None:
            try:
                await self._worth.note_end(ended)
            except DependencyUnavailableError as error:
                facts = {"deliberation_id": ended.id}
                _logger.warning("deliberation %s is assessed when it is read: %s", ended.id, error, extra=facts)

    def _note_left(self, deliberation_id: str, error: Exception) -> None:
        """Say why it was left. Its lease runs out, so whoever finds the store again, this process included, goes on with it."""
        facts = {"deliberation_id": deliberation_id}
        if _is_taken_over(error):
            _logger.warning("another worker went on with deliberation %s", deliberation_id, extra=facts)
        elif (outage := _outage_in(error)) is not None:
            self.last_outage = outage
            _logger.warning("deliberation %s is left until the store is back: %s", deliberation_id, outage, extra=facts)
        else:
            _logger.error(
                "deliberation %s could not be brought to its end", deliberation_id, extra=facts, exc_info=error
            )

    async def _hold(self, deliberation_id: str) -> Claim | None:
        """The deliberation, held from now on; None when there is nothing to do here. Waits at the door while it is halted."""
        while not self._stopping.is_set():
            claim = expected = self._expected.get(deliberation_id)
            if claim is None and deliberation_id not in self._running:
                try:
                    claim = await self._claim(deliberation_id)
                except DependencyUnavailableError as error:
                    facts = {"deliberation_id": deliberation_id}
                    _logger.warning("a deliberation is not begun while the store is away: %s", error, extra=facts)
                    await self._pause()
                    continue
            if claim is None:
                return None
            is_held_back = claim.deliberation.status is DeliberationStatus.QUEUED and await self._halt.is_halted()
            if expected is not None and self._expected.pop(deliberation_id, None) is None:
                # Cancelled meanwhile, or begun by the same job handed out twice.
                return None
            if not is_held_back:
                return claim
            # Queued ones stay queued while the system is halted, and are nobody's, so that they can be cancelled.
            await self._leases.release({deliberation_id: claim.lease})
            await self._wait_at_the_door(deliberation_id)
        return None

    async def _claim(self, deliberation_id: str) -> Claim | None:
        lease = self.new_lease()
        try:
            claim = await self._leases.claim(deliberation_id, lease=lease, lease_s=LEASE_S)
        except RecordMismatchError as error:
            # Nothing is called, or said to have ended, on the word of rows that somebody has changed.
            self._refuse(deliberation_id, str(error))
            return None
        if claim is None or self._may_take(claim.deliberation):
            return claim
        await self._leases.release({deliberation_id: lease})
        self._refuse(
            deliberation_id,
            f"it was accepted for {claim.deliberation.orchestrator!r}, and here {self._orchestrator.name!r} answers",
        )
        return None

    def _may_take(self, deliberation: Deliberation) -> bool:
        own, theirs = self._orchestrator, (deliberation.orchestrator, deliberation.simulated)
        return theirs == (own.name, own.simulated) or deliberation.cancel_requested

    def _refuse(self, deliberation_id: str, why: str) -> None:
        is_new = deliberation_id not in self._refused
        self._refused[deliberation_id] = self._clock.monotonic() + _REFUSED_S
        if is_new:
            facts = {"deliberation_id": deliberation_id}
            _logger.error("deliberation %s is not gone on with here: %s", deliberation_id, why, extra=facts)

    async def _wait_at_the_door(self, deliberation_id: str) -> None:
        self._at_the_door.add(deliberation_id)
        try:
            while await self._halt.is_halted() and not self._stopping.is_set():
                await self._pause()
        finally:
            self._at_the_door.discard(deliberation_id)

    async def _pause(self) -> None:
        """A moment, or until the worker stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DOOR_S):
                await self._stopping.wait()

    def _held(self) -> dict[str, str]:
        return {
            **{own: claim.lease for own, claim in self._expected.items()},
            **{own: run.lease for own, run in self._running.items()},
        }

    async def _each_second(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Do it again and again whatever happens; each work by itself, so that a queue that is away costs nobody its lease.

        What keeps it from that is said when it begins, and when it is over.
        """
        said: set[str] = set()
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - it is logged, and tried again
                problem = f"{type(error).__name__}: {error}"
                if problem not in said and len(said) < _MOST_SAID:
                    said.add(problem)
                    _log_failure(what, error)
            else:
                if said:
                    said.clear()
                    _logger.info("a worker can %s again", what)

    async def _renew(self) -> None:
        """Renew the leases, and hear of cancellations asked for elsewhere."""
        now = self._clock.monotonic()
        self._certain_until = {lease: until for lease, until in self._certain_until.items() if until > now}
        held = self._held()
        if held:
            await self._renew_these(held)

    async def _renew_these(self, held: Mapping[str, str]) -> None:
        certain_until = self._clock.monotonic() + LEASE_S
        renewal = await self._leases.renew(held, lease_s=LEASE_S)
        lost = set(renewal.lost)
        self._certain_until |= {lease: certain_until for own, lease in held.items() if own not in lost}
        for deliberation_id in renewal.lost:
            run = self._running.get(deliberation_id)
            if run is not None and run.lease == held[deliberation_id]:
                run.stop(StopCause.SUSPENDED)
            self._expected.pop(deliberation_id, None)
        for deliberation_id in renewal.cancelled:
            await self.cancel(deliberation_id)

    async def _sweep(self) -> None:
        """Release what the dead held, and put what nobody holds into the queue; the queue knows what it has already."""
        if self._stopping.is_set():
            return
        for process in self._registry.dead():
            released = await self._leases.release_process(process)
            self._registry.forget(process)
            if released:
                _logger.warning("a process died with %d deliberations in hand: others go on with them", released)
        now = self._clock.monotonic()
        begun_only = now - self._swept_queued_at < self._queued_sweep_s
        # What was put while the store or the queue was away may be lost: whoever fails at this looks for all of it again.
        self._swept_queued_at, last = float("-inf"), self._swept_queued_at
        for waits in await self._leases.waiting(limit=_SWEEP, begun_only=begun_only):
            here = self.is_here(waits.deliberation_id) or waits.deliberation_id in self._at_the_door
            if not here and self._refused.get(waits.deliberation_id, now) <= now:
                await self._queue.put(Job(waits.deliberation_id, waits.key_name))
        self._swept_queued_at = last if begun_only else now


class _LeaseOf:
    """`Holding` of one claim of a worker."""

    def __init__(self, worker: DeliberationWorker, claim: Claim) -> None:
        self._worker = worker
        self._claim = claim

    def is_certain(self) -> bool:
        return self._worker.is_certain(self._claim.lease)

    async def renew(self) -> None:
        await self._worker.renew(self._claim.deliberation.id, self._claim.lease)


def cancelled_before_its_start(claim: Claim, *, at: datetime) -> Commit:
    """What ends a deliberation that nobody has begun."""
    ended = claim.deliberation.end(DeliberationStatus.CANCELLED, at=at, reason="cancelled on request")
    return Commit(ended.id, [deliberation_ended(ended, cause=ended.reason)], ended, claim.lease)


def _log_failure(what: str, error: Exception) -> None:
    """Where a machine or a dependency lacks something, its words say all; anything else is a fault, whose place is wanted."""
    if isinstance(error, DependencyUnavailableError | OSError):
        _logger.warning("a worker could not %s: %s", what, error)
    else:
        _logger.error("a worker could not %s", what, exc_info=error)


def _recorded_s(ended: Deliberation) -> float:
    """How long it took by its record, over all the processes that worked on it."""
    started = ended.started_at or ended.created_at
    return max(((ended.finished_at or started) - started).total_seconds(), 0.0)


def _is_taken_over(error: BaseException) -> bool:
    """Whether all that went wrong is that another holds it, or has ended it."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_taken_over(each) for each in error.exceptions)
    return isinstance(error, LeaseLostError | DeliberationEndedError)


def _outage_in(error: BaseException) -> DependencyUnavailableError | None:
    """That the store is away, where nothing else went wrong, whatever others have made of the deliberation meanwhile."""
    if not isinstance(error, BaseExceptionGroup):
        return error if isinstance(error, DependencyUnavailableError) else None
    outages = [_outage_in(each) for each in error.exceptions]
    if any(outage is None and not _is_taken_over(each) for outage, each in zip(outages, error.exceptions, strict=True)):
        return None
    return next((outage for outage in outages if outage is not None), None)
