"""Does the work of a run while it is wanted: a halt and a cancellation ask it to end, and however it ends is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from application.ports.clock import Clock, SystemClock
from application.ports.halt_checker import HaltChecker
from application.ports.run_observer import RunObserver
from application.ports.run_registry import RunRecord, Unwanted
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, RunEnding

__all__ = ["HALT_GRACE_S", "LEAVE_S", "HeldRun", "Show", "Work", "hold_run", "public_reason"]

_logger = logging.getLogger(__name__)

Work: TypeAlias = Callable[[RunObserver, StopSignal], Awaitable[RunEnding]]
Show: TypeAlias = Callable[[str, Mapping[str, JsonValue]], None]

HALT_GRACE_S = 2.0
"""How long work may wind up once the system is halted; then it is cancelled."""

LEAVE_S = 2.0
"""How long work that was cancelled may take to let go; then nobody waits for it any more."""

_MAX_REASON = 1_000
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class HeldRun:
    """How a run ended, what of it could not be recorded, in words, and whether its work is still there although nobody waits for it."""

    ending: RunEnding
    unrecorded: Sequence[str] = ()
    abandoned: bool = False


async def hold_run(
    record: RunRecord,
    work: Work,
    *,
    stop: StopSignal,
    halt: HaltChecker,
    show: Show | None = None,
    clock: Clock | None = None,
) -> HeldRun:
    """How the work ended, recorded. Raises what the work raises, once that is recorded as well.

    Cancelled, it cancels the work, gives it `LEAVE_S` seconds to let go, and records what is then the end.
    """
    clock = clock if clock is not None else SystemClock()
    task = asyncio.ensure_future(work(_Notes(record, show), stop))
    halted = asyncio.create_task(_stop_when_halted(halt, stop))
    unwanted = asyncio.create_task(_stop_when_unwanted(record, stop))
    try:
        await asyncio.wait({task, halted}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=LEAVE_S)
        why = await _why(stop, halt, unwanted)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task}, timeout=LEAVE_S)
        status = (stop.reason or StopReason.CANCELLED).status
        record.end(status, at=clock.now(), reason="it was left before its work had wound up")
        raise
    finally:
        for watch in (halted, unwanted):
            watch.cancel()
        await asyncio.gather(halted, unwanted, return_exceptions=True)
    if not task.done() or task.cancelled():
        ending = RunEnding((stop.reason or StopReason.CANCELLED).status, {})
        reason = "; ".join(filter(None, (why, "its work did not wind up in time")))
        return HeldRun(ending, record.end(ending.status, at=clock.now(), reason=reason), abandoned=not task.done())
    error = task.exception()
    if error is not None:
        status = DeliberationStatus.HALTED if isinstance(error, SystemHaltedError) else DeliberationStatus.FAILED
        for problem in record.end(status, at=clock.now(), reason=public_reason(error)):
            _logger.warning("of run %s %s", record.id, problem)
        raise error
    ending = task.result()
    if not ending.status.is_terminal:
        ending = replace(ending, status=DeliberationStatus.FAILED)
    if stop.reason is not None and ending.status is not DeliberationStatus.COMPLETED:
        # However little was counted: it ended because it was told to.
        ending = replace(ending, status=stop.reason.status)
    else:
        why = None
    return HeldRun(ending, record.end(ending.status, at=clock.now(), result=ending.result, reason=why))


def public_reason(error: BaseException) -> str:
    """Why a run failed, in words that name no host, no path and no secret: those are for whoever ran it."""
    if isinstance(error, DependencyUnavailableError):
        text = f"{error.dependency} is away"
    elif isinstance(error, ConfigurationError):
        text = f"a setting stands in its way: {error.variable}"
    elif isinstance(error, ConclaveError):
        text = str(error)
    else:
        text = f"it broke ({type(error).__name__})"
    return text[:_MAX_REASON]


async def _stop_when_halted(halt: HaltChecker, stop: StopSignal) -> None:
    """Return when work that still runs has had its time since the halt, whatever it was asked to end for before."""
    await halt.wait_until_halted()
    stop.set(StopReason.HALTED)
    await asyncio.sleep(HALT_GRACE_S)


async def _stop_when_unwanted(record: RunRecord, stop: StopSignal) -> Unwanted:
    while (why := record.unwanted()) is None:  # noqa: ASYNC110 - another process says so, by a file
        await asyncio.sleep(_LOOK_EVERY_S)
    stop.set(StopReason.HALTED if why is Unwanted.HALTED else StopReason.CANCELLED)
    return why


async def _why(stop: StopSignal, halt: HaltChecker, unwanted: asyncio.Task[Unwanted]) -> str | None:
    if stop.reason is StopReason.HALTED:
        reason = await halt.get_halt_reason()
        return f"the system was halted: {reason}" if reason else "the system was halted"
    if stop.reason is StopReason.CANCELLED:
        return unwanted.result().value if unwanted.done() and not unwanted.cancelled() else "it was interrupted"
    return None


class _Notes:
    """The observer that the work sees: tells the record, and whoever watches."""

    def __init__(self, record: RunRecord, show: Show | None) -> None:
        self._record = record
        self._show = show

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        self._record.note(type, data)
        if self._show is None:
            return
        try:
            self._show(type, data)
        except Exception:
            # What is drawn is no part of the work.
            _logger.exception("the progress of the run is not shown any more")
            self._show = None

    def count(self, stats: BusStats) -> None:
        self._record.count(stats)

    def tally(self, counts: PopulationCounts) -> None:
        self._record.tally(counts)
