"""The fan-out: asks many agents at once and accounts for every one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn
from uuid import uuid4

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.ports.clock import Clock, SystemClock
from application.ports.halt_checker import HaltChecker
from application.ports.metrics import Metrics, NullMetrics
from application.ports.model_desk import ModelDesk, NullModelDesk
from application.services.batch import Batch, BatchObserver, ConcurrentResult, StopCause
from application.services.batch_run import BatchRun
from application.services.retry_policy import RetryPolicy
from application.services.slot_queue import MAX_WAITING_AGENTS, SlotQueue
from domain.errors.agent import AgentAlreadyActiveError, AgentInvocationError, AgentPoolExhaustedError
from domain.errors.halt import SystemHaltedError
from domain.models.agent_output import AgentFailure
from domain.models.agent_pool import AgentPool
from domain.models.budget import DEFAULT_AGENT_TIMEOUT_S, DEFAULT_MAX_ATTEMPTS, Usage

__all__ = ["ConcurrentDeliberationService", "ConcurrentResult"]

_logger = logging.getLogger(__name__)


class ConcurrentDeliberationService:
    """Asks agents concurrently, never more at once than the pool has slots, and loses none of them.

    One agent's failure, hang or garbage touches no other. A halt stops everything and is never taken for an agent's failure.
    Every agent takes its own slot when one is free and returns it when it ends (with an observer: when its end is recorded).
    """

    def __init__(
        self,
        *,
        orchestrator: AgentOrchestratorProtocol,
        halt_checker: HaltChecker,
        pool: AgentPool | None = None,
        metrics: Metrics | None = None,
        clock: Clock | None = None,
        retries: RetryPolicy | None = None,
        desk: ModelDesk | None = None,
        max_waiting: int = MAX_WAITING_AGENTS,
    ) -> None:
        """Without a `desk` every call is made at once and costs nothing."""
        self.desk: ModelDesk = desk if desk is not None else NullModelDesk()
        self.pool = pool if pool is not None else AgentPool()
        self._orchestrator = orchestrator
        self._halt = halt_checker
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._clock = clock if clock is not None else SystemClock()
        self._retries = retries if retries is not None else RetryPolicy()
        self._slots = SlotQueue(self.pool, max_waiting=max_waiting, granted=self._metrics.agent_invoked)

    @property
    def waiting_count(self) -> int:
        """How many agents wait for a slot."""
        return self._slots.waiting_count

    def get_pool_status(self) -> dict[str, int]:
        """`{"active_count", "available_count", "max_concurrent"}`."""
        return {
            "active_count": self.pool.active_count,
            "available_count": self.pool.available_count,
            "max_concurrent": self.pool.max_concurrent,
        }

    def models_for(self, model: str | None) -> int:
        """How many models are asked in turn for a member that names this one; one for a name that nobody knows any more."""
        try:
            return len(self.desk.route(model))
        except AgentInvocationError:
            return 1

    def prompt_of(self, request: AgentRequest) -> str | None:
        """What the agent will be told, so that it can be committed to before the call; None where the orchestrator does not say."""
        describe = getattr(self._orchestrator, "prompt_of", None)
        return None if describe is None else describe(request)

    async def invoke_single(self, request: AgentRequest) -> AgentOutput:
        """Ask one agent. Raises `AgentInvocationError` when it fails, and what `invoke_concurrent` raises."""
        result = await self.invoke_concurrent([request])
        if result.failures:
            failure = result.failures[0]
            raise AgentInvocationError(
                failure.message, agent_id=failure.agent_id, kind=failure.kind, state=failure.state
            )
        return result.outputs[0]

    async def invoke_concurrent(
        self,
        requests: Sequence[AgentRequest],
        *,
        agent_timeout_s: float = DEFAULT_AGENT_TIMEOUT_S,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        deadline_s: float | None = None,
    ) -> ConcurrentResult:
        """Ask all of these agents at once; failures are reported, never raised.

        An agent has `agent_timeout_s` seconds from its first call on, over all attempts; waiting for a slot does not count.
        After `deadline_s` seconds whoever has not ended is timed out. Raises `AgentPoolExhaustedError` for more requests than
        the pool's capacity, `AgentAlreadyActiveError` for an agent asked twice, and `SystemHaltedError` when the system is
        halted (nothing is touched) or becomes so (`partial` is the result so far, everyone included).
        """
        if len(requests) > self.pool.max_concurrent:
            if await self._halt.is_halted():
                await self._raise_halted(None)
            self._metrics.pool_exhausted()
            raise AgentPoolExhaustedError(
                requested=len(requests), available=self.pool.available_count, capacity=self.pool.max_concurrent
            )
        deadline = None if deadline_s is None else self._clock.monotonic() + deadline_s
        batch = Batch(str(uuid4()), agent_timeout_s=agent_timeout_s, deadline=deadline)
        result = await self.run_batch(batch, requests, max_attempts=max_attempts)
        if batch.cause is StopCause.HALTED:
            await self._raise_halted(result, reason=batch.halt_reason)
        return result

    async def run_batch(
        self,
        batch: Batch,
        requests: Sequence[AgentRequest],
        *,
        max_attempts: int,
        observer: BatchObserver | None = None,
    ) -> ConcurrentResult:
        """Ask all of these agents as slots become free, however many they are, until all ended or the batch is stopped.

        `batch.cause` says afterwards whether and why it was stopped. Raises `SystemHaltedError` only when the system was
        halted before anything began.
        """
        if await self._halt.is_halted() and not await self._may_open(batch):
            await self._raise_halted(None)
        _refuse_repeated(batch, requests)
        try:
            self._slots.admit(len(requests))
        except AgentPoolExhaustedError:
            self._metrics.pool_exhausted()
            raise
        started_at, started = self._clock.now(), self._clock.monotonic()
        run = BatchRun(
            batch,
            orchestrator=self._orchestrator,
            halt_checker=self._halt,
            slots=self._slots,
            desk=self.desk,
            metrics=self._metrics,
            clock=self._clock,
            retries=self._retries,
            max_attempts=max_attempts,
            observer=observer,
        )
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(self._stop_when_halted(batch))
            async with asyncio.TaskGroup() as agents:
                tasks = [agents.create_task(run.ask(request)) for request in requests]
            watcher.cancel()
        endings = [task.result() for task in tasks]
        total = self._clock.monotonic() - started
        outputs = tuple(ending for ending in endings if isinstance(ending, AgentOutput))
        failures = tuple(ending for ending in endings if isinstance(ending, AgentFailure))
        self._metrics.batch_ended(total, run.not_taking_part)
        return ConcurrentResult(batch.id, outputs, failures, total * 1000, started_at, self._clock.now())

    async def may_call(self) -> bool:
        """Whether a call that is no agent's may begin now: whether the system is not halted."""
        return not await self._halt.is_halted()

    def note_call(self, usage: Usage) -> None:
        """Count a call that was no agent's among all others."""
        self._metrics.call_made(usage)

    async def _may_open(self, batch: Batch) -> bool:
        """Wait while it is in doubt whether the system is halted; whether that is over, or the batch is stopped or due."""
        waiting = _Waiting(self._halt.wait_until_open())
        batch.enter(waiting)
        try:
            await asyncio.wait([waiting.task])
        finally:
            batch.leave(waiting)
            waiting.stop()
        return waiting.task.cancelled() or waiting.task.result()

    async def _stop_when_halted(self, batch: Batch) -> None:
        await self._halt.wait_until_halted()
        batch.stop(StopCause.HALTED)

    async def _raise_halted(self, partial: ConcurrentResult | None, *, reason: str | None = None) -> NoReturn:
        raise SystemHaltedError(await self._halt.get_halt_reason() or reason, partial=partial)


class _Waiting:
    """A wait at the door that a stop of the batch, or its deadline, ends."""

    __slots__ = ("is_calling", "task")

    def __init__(self, opening: Coroutine[Any, Any, bool]) -> None:
        self.is_calling = False
        self.task = asyncio.create_task(opening, name="wait-until-open")

    def stop(self) -> None:
        """Wait no longer."""
        self.task.cancel()


def _refuse_repeated(batch: Batch, requests: Sequence[AgentRequest]) -> None:
    seen: set[str] = set()
    for request in requests:
        if request.agent_id in seen:
            raise AgentAlreadyActiveError(agent_id=request.agent_id, batch_id=batch.id)
        seen.add(request.agent_id)
