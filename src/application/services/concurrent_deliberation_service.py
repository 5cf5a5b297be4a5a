"""The fan-out: asks many agents at once and accounts for every one of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, NoReturn
from uuid import uuid4

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.ports.clock import Clock, SystemClock
from application.ports.halt_checker import HaltChecker
from application.ports.metrics import Metrics, NullMetrics
from application.services.batch import AttemptEnd, Batch, BatchObserver, ConcurrentResult, StopCause
from application.services.retry_policy import RetryPolicy
from application.services.slot_queue import MAX_WAITING_AGENTS, SlotQueue
from domain.errors.agent import AgentAlreadyActiveError, AgentInvocationError, AgentPoolExhaustedError
from domain.errors.halt import SystemHaltedError
from domain.models.agent_output import AgentFailure
from domain.models.agent_pool import AgentPool
from domain.models.budget import DEFAULT_AGENT_TIMEOUT_S, DEFAULT_MAX_ATTEMPTS, Usage
from domain.models.roll_call import AgentState
from domain.models.text import MAX_OUTPUT_BYTES, clean, cut_to_bytes

__all__ = ["ConcurrentDeliberationService", "ConcurrentResult"]

_logger = logging.getLogger(__name__)
_MAX_MESSAGE = 500


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
        max_waiting: int = MAX_WAITING_AGENTS,
    ) -> None:
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
            self._metrics.pool_exhausted()
            raise AgentPoolExhaustedError(
                requested=len(requests), available=self.pool.available_count, capacity=self.pool.max_concurrent
            )
        deadline = None if deadline_s is None else self._clock.monotonic() + deadline_s
        batch = Batch(str(uuid4()), agent_timeout_s=agent_timeout_s, deadline=deadline)
        result = await self.run_batch(batch, requests, max_attempts=max_attempts)
        if batch.cause is StopCause.HALTED:
            await self._raise_halted(result)
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
        run = _BatchRun(self, batch, max_attempts=max_attempts, observer=observer)
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

    async def _raise_halted(self, partial: ConcurrentResult | None) -> NoReturn:
        raise SystemHaltedError(await self._halt.get_halt_reason(), partial=partial)


class _BatchRun:
    """What the agents of one batch have in common while they are asked."""

    __slots__ = (
        "_attempts",
        "_batch",
        "_halt",
        "_metrics",
        "_monotonic",
        "_observer",
        "_orchestrator",
        "_pool",
        "_retries",
        "_slots",
        "not_taking_part",
    )

    def __init__(
        self,
        service: ConcurrentDeliberationService,
        batch: Batch,
        *,
        max_attempts: int,
        observer: BatchObserver | None,
    ) -> None:
        self._batch = batch
        self._attempts = max_attempts
        self._observer = observer
        self._monotonic = service._clock.monotonic
        self._halt = service._halt
        self._metrics = service._metrics
        self._orchestrator = service._orchestrator
        self._pool = service.pool
        self._retries = service._retries
        self._slots = service._slots
        self.not_taking_part = 0

    async def ask(self, request: AgentRequest) -> AgentOutput | AgentFailure:
        """Ask one agent, once it has a slot, until it answered or failed for good.

        With an observer the slot is held until the end is recorded, so that invoked = ended + active at every moment.
        """
        batch, observer = self._batch, self._observer
        asking = _Asking(request)
        holds_slot = counted = False
        try:
            ending: AgentOutput | AgentFailure
            batch.enter(asking)
            try:
                if batch.cause is not None:
                    await self._heed_stop(asking)
                await self._take_slot(request.agent_id)
                holds_slot = True
                if observer is not None:
                    await observer.agent_starting(request)
                ending = await self._call(asking)
            except asyncio.CancelledError:
                holds_slot = holds_slot or self._pool.is_active(request.agent_id, batch.id)
                if not asking.is_own_stop():
                    raise
                ending = self._stopped(asking)
            else:
                asking.is_own_stop()
            finally:
                batch.leave(asking)
            state = AgentState.ANSWERED if isinstance(ending, AgentOutput) else ending.state
            if observer is not None:
                state = await observer.agent_ended(request, ending)
            if not holds_slot and batch.cause is StopCause.SUSPENDED:
                # It was not begun here, and ends elsewhere.
                return ending
            if not holds_slot:
                self._metrics.agent_invoked()
            self._metrics.agent_ended(state, ending.duration_seconds)
            counted = True
            if not state.took_part:
                self.not_taking_part += 1
        finally:
            if holds_slot:
                if not counted:
                    self._metrics.agent_ended(AgentState.CANCELLED, 0.0)
                self._pool.release(request.agent_id, batch.id)
        if isinstance(ending, AgentFailure) and batch.cause is not StopCause.SUSPENDED:
            _logger.warning(
                "agent %r ended as %s (%s): %s",
                ending.agent_id,
                ending.state.value,
                ending.kind,
                ending.message,
                extra={"batch_id": batch.id, "agent_id": ending.agent_id, "kind": ending.kind},
            )
        return ending

    async def _take_slot(self, agent_id: str) -> None:
        if self._slots.try_acquire(agent_id, self._batch.id):
            self._metrics.slot_granted(0.0)
            return
        queued = self._monotonic()
        await self._slots.acquire(agent_id, self._batch.id)
        self._metrics.slot_granted(self._monotonic() - queued)

    async def _call(self, asking: _Asking) -> AgentOutput | AgentFailure:
        """Call until there is an output or no further attempt helps; the agent's time runs from here on."""
        batch, request = self._batch, asking.request
        previous: AttemptEnd | None = None
        while True:
            if not await self._may_call():
                return await self._heed_stop(asking)
            if previous is None:
                asking.began = self._monotonic()
                batch.start_clock(asking, asking.began)
            else:
                request = replace(request, attempt=asking.attempts + 1)
                if self._observer is not None:
                    await self._observer.agent_starting(request, previous)
                    # Recording takes its time, in which the door may have been closed.
                    if not await self._may_call():
                        return await self._heed_stop(asking)
            asking.attempts += 1
            asking.is_calling = True
            try:
                output = await self._orchestrator.invoke(request)
            except SystemHaltedError:
                batch.stop(StopCause.HALTED)
                return await self._heed_stop(asking)
            except AgentInvocationError as error:
                if error.state is AgentState.THROTTLED:
                    self._metrics.call_throttled()
                pause = self._pause(asking, error)
                if pause is None:
                    return self._failure(asking, error.state, error.kind, error.message)
                previous = AttemptEnd(error.state, error.kind)
                asking.is_calling = False
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                if asking.task.cancelling():
                    raise
                return self._failure(asking, AgentState.FAILED, "cancelled_itself", "the call cancelled itself")
            except TimeoutError as error:
                return self._failure(asking, AgentState.TIMED_OUT, "timeout", str(error) or "the call timed out")
            except Exception as error:  # noqa: BLE001 - a third party's orchestrator may raise anything
                return self._failure(asking, AgentState.FAILED, "unexpected_error", f"{type(error).__name__}: {error}")
            else:
                return self._checked(asking, output)

    async def _may_call(self) -> bool:
        """Wait while it is in doubt whether the system is halted, or whether this process is in charge; whether a call may begin then."""
        holding = self._batch.holding
        while self._batch.cause is None:
            if await self._halt.is_halted() and not await self._halt.wait_until_open():
                self._batch.stop(StopCause.HALTED)
            elif holding is None or holding.is_certain():
                return self._batch.cause is None
            else:
                await holding.renew()
        return False

    async def _heed_stop(self, asking: _Asking) -> AgentFailure:
        """Let the cancellation that the stop of the batch orders reach this task now, and not in the midst of recording."""
        asking.stop()
        await asyncio.sleep(0)
        return self._stopped(asking)

    def _pause(self, asking: _Asking, error: AgentInvocationError) -> float | None:
        """Seconds until the next attempt, or None when there is none or it could not begin in time."""
        if not error.retryable or asking.attempts >= max(self._attempts, asking.request.attempt):
            return None
        pause = self._retries.delay(asking.attempts, error.retry_after_s)
        return None if self._monotonic() + pause >= self._batch.end_of(asking) else pause

    def _checked(self, asking: _Asking, output: object) -> AgentOutput | AgentFailure:
        request = asking.request
        if not isinstance(output, AgentOutput) or not isinstance(output.content, str):
            return self._failure(
                asking, AgentState.FAILED, "bad_output", f"the orchestrator returned {type(output).__name__}, no output"
            )
        if output.agent_id != request.agent_id or output.request_id != request.request_id:
            return self._failure(
                asking, AgentState.FAILED, "foreign_output", "the orchestrator returned the output of another request"
            )
        output.content, cut = cut_to_bytes(clean(output.content), MAX_OUTPUT_BYTES)
        output.truncated = output.truncated or cut
        output.batch_id = self._batch.id
        output.attempt = asking.attempts
        output.duration_seconds = 0.0 if asking.began is None else self._monotonic() - asking.began
        if output.usage.calls:
            self._metrics.call_made(output.usage)
        return output

    def _stopped(self, asking: _Asking) -> AgentFailure:
        """The failure of an agent whose time was over, or that was stopped with its batch."""
        cause = self._batch.cause
        if cause is not None:
            return self._failure(asking, *cause.value)
        deadline = self._batch.deadline
        if deadline is not None and self._monotonic() >= deadline - 1e-6:
            return self._failure(asking, AgentState.TIMED_OUT, "deadline", "the deadline of the batch came first")
        return self._failure(
            asking,
            AgentState.TIMED_OUT,
            "agent_timeout",
            f"no answer within {self._batch.agent_timeout_s:g} s over all attempts",
        )

    def _failure(self, asking: _Asking, state: AgentState, kind: str, message: str) -> AgentFailure:
        duration = 0.0 if asking.began is None else self._monotonic() - asking.began
        return AgentFailure(
            asking.request.agent_id,
            kind,
            clean(message)[:_MAX_MESSAGE],
            asking.attempts,
            duration,
            state,
            Usage(calls=asking.attempts),
        )


class _Waiting:
    """A wait at the door that a stop of the batch, or its deadline, ends."""

    __slots__ = ("is_calling", "task")

    def __init__(self, opening: Coroutine[Any, Any, bool]) -> None:
        self.is_calling = False
        self.task = asyncio.create_task(opening, name="wait-until-open")

    def stop(self) -> None:
        """Wait no longer."""
        self.task.cancel()


class _Asking:
    """How far one agent has come: attempts made, the loop time at which its time began here, and whether it was stopped.

    Stopping works as `asyncio.timeout` does: the task is cancelled, and the cancellation is taken back where it was ours alone.
    """

    __slots__ = ("_cancelling", "_stopped", "attempts", "began", "is_calling", "request", "task")

    def __init__(self, request: AgentRequest) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an agent is asked in a task of its own")
        self.task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._stopped = False
        self.is_calling = False
        self.request = request
        # Attempts before the one that is asked for were made by a process that did not live to see them end.
        self.attempts = request.attempt - 1
        self.began: float | None = None

    def stop(self) -> None:
        """End this agent now."""
        if not self._stopped:
            self._stopped = True
            self.task.cancel()

    def is_own_stop(self) -> bool:
        """Take back the cancellation of `stop`; False when somebody else cancelled the task, before or meanwhile."""
        return self._stopped and self.task.uncancel() <= self._cancelling


def _refuse_repeated(batch: Batch, requests: Sequence[AgentRequest]) -> None:
    seen: set[str] = set()
    for request in requests:
        if request.agent_id in seen:
            raise AgentAlreadyActiveError(agent_id=request.agent_id, batch_id=batch.id)
        seen.add(request.agent_id)
