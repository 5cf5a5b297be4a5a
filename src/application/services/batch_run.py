"""Asks the agents of one batch: slot, route, leave, intent, call and retries, until each answered or failed for good."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.ports.clock import Clock
from application.ports.halt_checker import HaltChecker
from application.ports.metrics import Metrics
from application.ports.model_desk import ModelDesk
from application.services.asking import Asking
from application.services.batch import AttemptEnd, Batch, BatchObserver, CallEnd, StopCause
from application.services.model_route import FALLS_BACK, resumed
from application.services.retry_policy import RetryPolicy
from application.services.slot_queue import SlotQueue
from domain.errors.agent import AgentInvocationError
from domain.errors.budget import BudgetExceededError
from domain.errors.halt import SystemHaltedError
from domain.models.agent_output import AgentFailure
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from domain.models.text import MAX_OUTPUT_BYTES, clean, cut_to_bytes

__all__ = ["BatchRun"]

_logger = logging.getLogger(__name__)
_MAX_MESSAGE = 500
_HUNG = frozenset({"agent_timeout", "timeout"})
_NOTHING = Usage()
_ONE_CALL = Usage(1)


class BatchRun:
    """What the agents of one batch have in common while they are asked."""

    __slots__ = (
        "_attempts",
        "_batch",
        "_desk",
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
        batch: Batch,
        *,
        orchestrator: AgentOrchestratorProtocol,
        halt_checker: HaltChecker,
        slots: SlotQueue,
        desk: ModelDesk,
        metrics: Metrics,
        clock: Clock,
        retries: RetryPolicy,
        max_attempts: int,
        observer: BatchObserver | None,
    ) -> None:
        self._batch = batch
        self._attempts = max_attempts
        self._observer = observer
        self._monotonic = clock.monotonic
        self._desk = desk
        self._halt = halt_checker
        self._metrics = metrics
        self._orchestrator = orchestrator
        self._pool = slots.pool
        self._retries = retries
        self._slots = slots
        self.not_taking_part = 0

    async def ask(self, request: AgentRequest) -> AgentOutput | AgentFailure:
        """Ask one agent, once it has a slot, until it answered or failed for good.

        With an observer the slot is held until the end is recorded, so that invoked = ended + active at every moment.
        """
        batch, observer = self._batch, self._observer
        asking = Asking(request)
        holds_slot = counted = False
        try:
            ending: AgentOutput | AgentFailure
            batch.enter(asking)
            try:
                if batch.cause is not None or batch.is_due(self._monotonic()):
                    await self._heed_stop(asking)
                await self._take_slot(request.agent_id)
                holds_slot = True
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
            # Nothing is recorded of an agent after its end.
            await asking.stop_further()
            state = AgentState.ANSWERED if isinstance(ending, AgentOutput) else ending.state
            if observer is not None:
                state = await observer.agent_ended(request, ending, asking.last)
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

    async def _call(self, asking: Asking) -> AgentOutput | AgentFailure:
        """Call until there is an output or no further attempt helps; the agent's time runs while a call is made, and between two."""
        request = asking.request
        try:
            route = self._desk.route(request.model)
        except AgentInvocationError as error:
            return self._failure(asking, error.state, error.kind, error.message)
        place, made_here = resumed(route, request)
        # A call that was cut off with its process is made once more, whatever the limit.
        most = max(self._attempts, made_here + 1)
        while True:
            model = route[place]
            if not await self._may_call():
                return await self._heed_stop(asking)
            attempt = asking.attempts + 1
            if model != request.model or attempt != request.attempt:
                request = replace(request, model=model, attempt=attempt)
            failure: AgentInvocationError
            was_made = False
            try:
                if not await self._get_leave(asking, request):
                    return await self._heed_stop(asking)
                made_here += 1
                was_made = True
                return await self._invoke(asking, request, fell_back=place > 0)
            except BudgetExceededError as error:
                self._metrics.call_over_budget()
                return self._failure(asking, AgentState.OVER_BUDGET, error.budget, str(error), fell_back=place > 0)
            except AgentInvocationError as error:
                failure = error
            if was_made and failure.retryable and made_here < most:
                pause = self._pause(asking, failure)
                if pause is not None:
                    if pause:
                        await asyncio.sleep(pause)
                    continue
            if place + 1 == len(route) or failure.kind not in FALLS_BACK:
                return self._failure(asking, failure.state, failure.kind, failure.message, fell_back=place > 0)
            place, made_here, most = place + 1, 0, self._attempts

    async def _get_leave(self, asking: Asking, request: AgentRequest) -> bool:
        """Wait for leave to make this call, and have it recorded; False when the batch is stopped. Raises what refuses it."""
        batch, observer, desk = self._batch, self._observer, self._desk
        forecast = desk.foresee(request)
        if asking.began is not None:
            asking.left_s = batch.stop_clock(asking, self._monotonic())
        if observer is not None:
            await observer.reserve(request, forecast, asking.previous)
        try:
            permit = await desk.admit(request, forecast, until=batch.deadline)
        except BaseException:
            if observer is not None:
                observer.give_back(forecast)
            raise
        if observer is not None or desk.paces:
            try:
                if observer is not None:
                    await observer.agent_starting(request, forecast, asking.previous)
                # Waiting and recording take their time, in which the door may have been closed.
                if not await self._may_call():
                    permit.end(_NOTHING)
                    return False
            except BaseException:
                permit.end(_NOTHING)
                raise
        asking.attempts += 1
        asking.call = (permit, forecast)
        now = self._monotonic()
        if asking.began is None:
            asking.began = now
        batch.start_clock(asking, now, left_s=asking.left_s)
        return True

    async def _invoke(self, asking: Asking, request: AgentRequest, *, fell_back: bool) -> AgentOutput | AgentFailure:
        """Make one call. Raises `AgentInvocationError` where it is the far end that did not answer, and `BudgetExceededError`."""
        if self._desk.paces:
            # Only an orchestrator behind a desk may make further calls for one output.
            request = replace(request, next_call=self._next_call(asking, request))
        asking.is_calling = True
        try:
            output = await self._orchestrator.invoke(request)
        except SystemHaltedError as error:
            self._end_call(asking, None)
            self._batch.halt_reason = self._batch.halt_reason or error.reason
            self._batch.stop(StopCause.HALTED)
            return await self._heed_stop(asking)
        except AgentInvocationError as error:
            if error.state is AgentState.THROTTLED:
                self._metrics.call_throttled()
            self._end_call(asking, error.usage, error)
            asking.previous = AttemptEnd(error.state, error.kind, asking.last)
            asking.is_calling = False
            raise
        except asyncio.CancelledError:
            if asking.task.cancelling():
                raise
            return self._failure(asking, AgentState.FAILED, "cancelled_itself", "the call cancelled itself")
        except BudgetExceededError:
            raise
        except TimeoutError as error:
            return self._failure(asking, AgentState.TIMED_OUT, "timeout", _told(error) or "the call timed out")
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:
            # A third party's orchestrator may raise anything; only what ends the whole process is not its agent's alone.
            if asking.task.cancelling() or _ends_the_process(error):
                raise
            said = _told(error)
            message = f"{type(error).__name__}: {said}" if said else type(error).__name__
            return self._failure(asking, AgentState.FAILED, "unexpected_error", message)
        return self._checked(asking, output, fell_back=fell_back)

    def _next_call(self, asking: Asking, request: AgentRequest) -> Callable[[Usage | None], Awaitable[AgentRequest]]:
        async def next_call(usage: Usage | None) -> AgentRequest:
            asking.further = asyncio.current_task()
            self._end_call(asking, usage)
            asking.previous = AttemptEnd(AgentState.ANSWERED, "continued", asking.last)
            further = replace(request, attempt=asking.attempts + 1, next_call=next_call)
            if not await self._may_call() or not await self._get_leave(asking, further):
                await self._heed_stop(asking)
                raise AgentInvocationError("the batch was stopped", kind="stopped", usage=_NOTHING)
            return further

        return next_call

    def _end_call(self, asking: Asking, usage: Usage | None, error: AgentInvocationError | None = None) -> None:
        """The call in flight, if there is one, is over; `usage` is None where nobody knows what it took."""
        if asking.call is None:
            return
        (permit, forecast), asking.call = asking.call, None
        if usage is not None and not usage.calls:
            usage = _ONE_CALL if usage == _NOTHING else replace(usage, calls=1)
        permit.end(usage, error)
        last = asking.last = CallEnd(asking.attempts, forecast, usage)
        asking.took(last.counted)
        if usage is not None:
            self._metrics.call_made(usage)

    async def _may_call(self) -> bool:
        """Wait while it is in doubt whether the system is halted, or whether this process is in charge; whether a call may begin then.

        None begins once the deadline has come, though its timer may not have rung yet.
        """
        batch = self._batch
        holding = batch.holding
        while batch.cause is None:
            if await self._halt.is_halted() and not await self._halt.wait_until_open():
                batch.stop(StopCause.HALTED)
            elif holding is None or holding.is_certain():
                return self._batch.cause is None and not batch.is_due(self._monotonic())
            else:
                await holding.renew()
        return False

    async def _heed_stop(self, asking: Asking) -> AgentFailure:
        """Let the cancellation that a stop of the batch, or its deadline, orders reach this task now, and not in the midst of recording."""
        asking.stop()
        await asyncio.sleep(0)
        return self._stopped(asking)

    def _pause(self, asking: Asking, error: AgentInvocationError) -> float | None:
        """Seconds until the next attempt, or None when it could not begin in time."""
        if self._desk.paces and error.state is AgentState.THROTTLED:
            # Whoever asks for more than an agent's whole time will not answer it: the desk holds everybody else back.
            asked_s = error.retry_after_s or 0.0
            return 0.0 if self._monotonic() + asked_s < self._batch.end_of(asking) else None
        pause = self._retries.delay(asking.attempts, error.retry_after_s)
        return None if self._monotonic() + pause >= self._batch.end_of(asking) else pause

    def _checked(self, asking: Asking, output: object, *, fell_back: bool) -> AgentOutput | AgentFailure:
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
        self._end_call(asking, output.usage)
        output.usage = asking.usage
        output.fell_back = fell_back
        return output

    def _stopped(self, asking: Asking) -> AgentFailure:
        """The failure of an agent whose time was over, or that was stopped with its batch."""
        cause = self._batch.cause
        if cause is not None:
            return self._failure(asking, *cause.value)
        if self._batch.is_due(self._monotonic()):
            return self._failure(asking, AgentState.TIMED_OUT, "deadline", "the deadline of the batch came first")
        return self._failure(
            asking,
            AgentState.TIMED_OUT,
            "agent_timeout",
            f"no answer within {self._batch.agent_timeout_s:g} s over all attempts",
        )

    def _failure(
        self, asking: Asking, state: AgentState, kind: str, message: str, *, fell_back: bool = False
    ) -> AgentFailure:
        hung = None
        if kind in _HUNG:
            # The far end did not answer in time; of a call that was given up for another reason nobody knows what it would have done.
            hung = AgentInvocationError(message, kind=kind, state=state)
        self._end_call(asking, None, hung)
        duration = 0.0 if asking.began is None else self._monotonic() - asking.began
        return AgentFailure(
            asking.request.agent_id,
            kind,
            clean(message)[:_MAX_MESSAGE],
            asking.attempts,
            duration,
            state,
            asking.usage,
            fell_back,
        )


def _told(error: BaseException) -> str:
    """What it says of itself; nothing where even that goes wrong."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a text by somebody else's code
        return ""


def _ends_the_process(error: BaseException) -> bool:
    return isinstance(error, BaseExceptionGroup) and error.subgroup((KeyboardInterrupt, SystemExit)) is not None
