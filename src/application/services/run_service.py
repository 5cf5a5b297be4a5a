"""Runs for those who are not at the command line: started in processes of their own, listed, followed, cancelled, and ended by a halt."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from application.ports.clock import Clock, SystemClock
from application.ports.halt_checker import HaltChecker
from application.ports.idempotency import IdempotencyKey
from application.ports.run_registry import (
    RememberedRun,
    RunAnnouncement,
    RunLauncher,
    RunPage,
    RunProcess,
    RunRegistry,
    Unwanted,
)
from application.ports.run_series import NoRunSeries, RunSeries, RunSeriesReader
from application.services.run_holding import HALT_GRACE_S, public_reason
from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import FieldProblem, ServiceStoppingError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.errors.run import InvalidRunError, RunNotFoundError, TooManyRunsError
from domain.models.deliberation import DeliberationStatus
from domain.models.run import JsonValue, Run, RunKind
from domain.models.run_event import RunEvent, new_run_id

__all__ = ["CANCEL_GRACE_S", "MAX_RUNNING", "RunForm", "RunService"]

_logger = logging.getLogger(__name__)

MAX_RUNNING = 4
"""Runs of one server at a time: each may keep all cores busy."""

CANCEL_GRACE_S = 10.0
_HALT_GRACE_S = HALT_GRACE_S
_STOP_GRACE_S = 4.0
_TERMINATE_S = 2.0
_KILLED_S = 5.0
_RETRY_AFTER_S = 10
_LOOK_S = 0.25
_HEARTBEAT_S = 1.0
_EVENT_PAGE = 500
_BELOW = "/arguments"

Checked: TypeAlias = "tuple[dict[str, JsonValue], list[FieldProblem]]"


@dataclass(frozen=True, slots=True)
class RunForm:
    """How a kind of run is described: what checks its arguments and fills in the others, and the command line that they make."""

    check: Callable[[Mapping[str, object]], Checked]
    command_line: Callable[[Mapping[str, JsonValue]], list[str]]


@dataclass(eq=False)
class _Slot:
    """A place of one of the runs of this server."""

    run_id: str
    idempotency: IdempotencyKey | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class RunService:
    """At most `max_running` runs of this server are under way at a time, and none of its processes outlives it.

    `form_of` knows how a kind is described, or None while there is none of that kind.
    """

    def __init__(
        self,
        *,
        registry: RunRegistry,
        launcher: RunLauncher,
        form_of: Callable[[RunKind], RunForm | None],
        halt: HaltChecker,
        clock: Clock | None = None,
        max_running: int = MAX_RUNNING,
        series: RunSeriesReader | None = None,
    ) -> None:
        self._registry = registry
        self._series: RunSeriesReader = series if series is not None else NoRunSeries()
        self._launcher = launcher
        self._form_of = form_of
        self._halt = halt
        self._clock = clock if clock is not None else SystemClock()
        self._max_running = max_running
        self._slots: dict[str, _Slot] = {}
        self._stopping = asyncio.Event()

    @property
    def running_count(self) -> int:
        """How many runs of this server are under way."""
        return len(self._slots)

    async def start(
        self,
        kind: RunKind,
        arguments: Mapping[str, object],
        *,
        key_name: str | None,
        idempotency: IdempotencyKey | None = None,
    ) -> Run:
        """A new run, queued until its process has begun, and stored with what its caller calls it.

        Raises `InvalidRunError`, `SystemHaltedError` (in doubt as well), `TooManyRunsError`, `ServiceStoppingError`,
        `RunKeyTakenError` and `DependencyUnavailableError`; nothing has begun then, and no key stands for it.
        """
        form = self._form_of(kind)
        if form is None:
            raise InvalidRunError([FieldProblem("/kind", f"there are no {kind.value} runs in this version yet")])
        checked, problems = form.check(arguments)
        if problems:
            raise InvalidRunError([_below_arguments(problem) for problem in problems])
        if self._stopping.is_set():
            raise ServiceStoppingError
        if await self._halt.is_halted():
            raise SystemHaltedError(await self._halt.get_halt_reason())
        if len(self._slots) >= self._max_running:
            raise TooManyRunsError(running=len(self._slots), limit=self._max_running, retry_after_s=_RETRY_AFTER_S)
        run_id = new_run_id(self._clock.now())
        run = Run(run_id, kind, DeliberationStatus.QUEUED, checked, key_name=key_name)
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots[run_id] = slot = _Slot(run_id, idempotency)
        slot.task = asyncio.create_task(self._look_after(slot, run, form.command_line(checked), begun))
        # Whoever asked may leave in the middle, and somebody has to look after the process all the same.
        await asyncio.shield(begun)
        return run

    async def remembered(self, idempotency: IdempotencyKey) -> RememberedRun | None:
        """What the key stands for, as in `RunRegistry`."""
        return await asyncio.to_thread(self._registry.remembered, idempotency)

    async def page(
        self, *, status: DeliberationStatus | None, key_name: str | None, limit: int, cursor: str | None
    ) -> RunPage:
        """Runs that may be seen under that key's name, or all with None; newest first. Raises `InvalidSpecificationError`."""
        return await asyncio.to_thread(
            self._registry.page, status=status, key_name=key_name, limit=limit, cursor=cursor
        )

    async def get(self, run_id: str, *, key_name: str | None) -> Run:
        """The run. Raises `RunNotFoundError`, also for one that may not be seen under that key's name."""
        run = await asyncio.to_thread(self._registry.get, run_id)
        if key_name is not None and run.key_name != key_name:
            raise RunNotFoundError(run_id=run_id)
        return run

    async def series(self, run: Run) -> RunSeries:
        """How that run went along, a bounded part further than the last time. Whether it may be seen was asked by `get`."""
        return await asyncio.to_thread(self._series.read, run)

    async def cancel(self, run_id: str, *, key_name: str | None) -> Run:
        """Ask for the end of a run, wherever it runs. Raises `RunNotFoundError` and `RunEndedError`.

        One of this server that does not end within 10 s is terminated, and killed 2 s later.
        """
        await self.get(run_id, key_name=key_name)
        run = await asyncio.to_thread(self._registry.request_end, run_id)
        if run_id in self._slots:
            self._slots[run_id].cancelled.set()
        return run

    async def events(self, run_id: str, *, after: int = 0) -> AsyncIterator[RunEvent | None]:
        """Every event with a greater sequence than `after`, as it is written, up to the terminal one.

        Yields None when nothing happened for a second, so that a caller can notice a reader that has gone away. Ends early when the
        service stops.
        """
        silent_s = 0.0
        while True:
            try:
                page = await asyncio.to_thread(self._registry.events, run_id, after=after, limit=_EVENT_PAGE)
            except RunNotFoundError:
                # It was old enough to be removed meanwhile.
                return
            for event in page:
                after = event.sequence
                yield event
                if event.is_terminal:
                    return
            if page:
                silent_s = 0.0
                continue
            if self._stopping.is_set():
                return
            if silent_s >= _HEARTBEAT_S:
                silent_s = 0.0
                if await self._has_ended_before(run_id, after):
                    return
                yield None
            await asyncio.sleep(_LOOK_S)
            silent_s += _LOOK_S

    async def stop(self) -> None:
        """Take no more runs, and end those of this server: asked to, terminated after 4 s, killed after 2 s more."""
        self._stopping.set()
        slots = list(self._slots.values())
        await asyncio.gather(*(self._ask_to_end(slot) for slot in slots))
        await asyncio.gather(*(slot.task for slot in slots if slot.task is not None), return_exceptions=True)

    async def _ask_to_end(self, slot: _Slot, why: Unwanted = Unwanted.CANCELLED) -> None:
        try:
            await asyncio.to_thread(self._registry.request_end, slot.run_id, why)
        except ConclaveError as error:
            # It has ended, or is not told and therefore terminated.
            _logger.info("run %s is not asked to end: %s", slot.run_id, error)

    async def _look_after(
        self, slot: _Slot, run: Run, command_line: Sequence[str], begun: asyncio.Future[None]
    ) -> None:
        announcement: RunAnnouncement | None = None
        process: RunProcess | None = None
        failure: ConclaveError | None = None
        status, reason = DeliberationStatus.FAILED, "the server lost sight of it"
        try:
            announcement = await asyncio.to_thread(self._registry.announce, run, idempotency=slot.idempotency)
            process = await self._launcher.launch(run, command_line)
            _settle(begun, None)
            status, reason = await self._outlive(slot, process)
        except ConclaveError as error:
            failure, reason = error, public_reason(error)
        finally:
            if process is not None:
                process.kill()
            if announcement is not None:
                if process is None and slot.idempotency is not None:
                    await self._forget_key(slot)
                await self._let_go(slot, announcement, status, reason)
            self._slots.pop(slot.run_id, None)
            _settle(begun, failure)

    async def _outlive(self, slot: _Slot, process: RunProcess) -> tuple[DeliberationStatus, str]:
        """Wait until the process has ended, by itself or not; how its run ended unless it said so itself."""
        ended = asyncio.create_task(process.wait())
        due = {
            asyncio.create_task(self._halted(slot)): DeliberationStatus.HALTED,
            asyncio.create_task(_later(slot.cancelled.wait(), CANCEL_GRACE_S)): DeliberationStatus.CANCELLED,
            asyncio.create_task(_later(self._stopping.wait(), _STOP_GRACE_S)): DeliberationStatus.CANCELLED,
        }
        try:
            await asyncio.wait({ended, *due}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return self._end_of(slot, ended.result())
            status = next(status for task, status in due.items() if task.done())
            _logger.warning("run %s does not end by itself: its process is terminated", slot.run_id)
            process.terminate()
            await asyncio.wait({ended}, timeout=_TERMINATE_S)
            if not ended.done():
                process.kill()
                await asyncio.wait({ended}, timeout=_KILLED_S)
            return status, "its process did not end by itself and was ended"
        finally:
            for task in (*due, ended):
                task.cancel()
            await asyncio.gather(*due, ended, return_exceptions=True)

    async def _halted(self, slot: _Slot) -> None:
        """Return once the system is halted and the run has had its time since."""
        await self._halt.wait_until_halted()
        # Its process mostly knows already, but a halt may be this server's alone.
        await self._ask_to_end(slot, Unwanted.HALTED)
        await asyncio.sleep(_HALT_GRACE_S)

    def _end_of(self, slot: _Slot, code: int) -> tuple[DeliberationStatus, str]:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if slot.cancelled.is_set() or self._stopping.is_set():
            return DeliberationStatus.CANCELLED, "it was cancelled"
        return DeliberationStatus.FAILED, f"its process ended before its work did ({how})"

    async def _forget_key(self, slot: _Slot) -> None:
        """Leave the key free: whoever is told that nothing has begun may try again under it."""
        try:
            await asyncio.to_thread(self._registry.forget_key, slot.run_id)
        except DependencyUnavailableError as error:
            _logger.warning("the key of run %s stands for it although it never began: %s", slot.run_id, error)

    async def _let_go(
        self, slot: _Slot, announcement: RunAnnouncement, status: DeliberationStatus, reason: str
    ) -> None:
        try:
            await asyncio.to_thread(self._registry.settle, slot.run_id, status, reason=reason)
        except DependencyUnavailableError as error:
            # Whoever reads it finds that nobody holds it.
            _logger.warning("the end of run %s cannot be recorded: %s", slot.run_id, error)
        finally:
            announcement.close()

    async def _has_ended_before(self, run_id: str, after: int) -> bool:
        """Whether a reader that asks for more after the terminal event would wait for ever."""
        run = await asyncio.to_thread(self._registry.get, run_id)
        if not run.status.is_terminal or await self._has_more(run_id, after):
            return False
        # Its process may have died between its last two steps, and then the last event is yet to be written.
        await asyncio.to_thread(self._registry.settle, run_id, run.status, reason=run.reason or "")
        return not await self._has_more(run_id, after)

    async def _has_more(self, run_id: str, after: int) -> bool:
        return bool(await asyncio.to_thread(self._registry.events, run_id, after=after, limit=1))


def _settle(begun: asyncio.Future[None], error: ConclaveError | None) -> None:
    """Tell whoever waits for the run to begin, unless nobody does any more."""
    if not begun.done():
        if error is None:
            begun.set_result(None)
        else:
            begun.set_exception(error)


async def _later(moment: Awaitable[Any], seconds: float) -> None:
    await moment
    await asyncio.sleep(seconds)


def _below_arguments(problem: FieldProblem) -> FieldProblem:
    if problem.pointer == _BELOW or problem.pointer.startswith(f"{_BELOW}/"):
        return problem
    return FieldProblem(f"{_BELOW}{problem.pointer}", problem.message)
