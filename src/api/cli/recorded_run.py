"""A run on the command line: registered where REST lists it, ended by a halt, a cancellation or Ctrl-C, and printed however it ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from api.cli.exit_codes import ExitCode
from api.cli.interruption import Interruption, run_interruptible
from api.cli.terminal import complain, print_document
from domain.errors.bus import BusUnavailableError
from domain.models.deliberation import DeliberationStatus

if TYPE_CHECKING:
    from application.ports.run_registry import RunRecord
    from application.services.run_holding import HeldRun, Work
    from application.services.stop_signal import StopSignal
    from domain.models.halt import HaltState
    from domain.models.run import JsonValue, RunEnding, RunKind

__all__ = ["run_recorded"]

Render: TypeAlias = "Callable[[Mapping[str, JsonValue]], None]"
Show: TypeAlias = "Callable[[str, Mapping[str, JsonValue]], None]"

# Longer than work that was cancelled is waited for, and that again after it was halted.
_LAST_RESORT_S = 5.0
_AT_ONCE_S = 0.3
_LOOK_S = 0.1


class _WatchedHalt(Protocol):
    @property
    def state(self) -> HaltState: ...


def run_recorded(
    kind: RunKind,
    arguments: Mapping[str, JsonValue],
    work: Work,
    *,
    settings: Any,
    as_json: bool,
    render: Render,
    show: Show | None = None,
) -> int:
    """Do `work` as a run of this data folder, print what came of it, and return the exit code.

    `work` gets the observer, whose notes go to the run's events and to `show` where a person watches standard error, and the
    signal that asks it to wind up: set by the halt, by a cancellation, and by the first Ctrl-C or SIGTERM. The second of those
    leaves at once. The result is printed as one document (`as_json`) or by `render`, unless there is none.

    0 when it is `completed`, 4 when it is `failed` and its result's `failure.kind` is `bus-unavailable`, 1 otherwise, 130 and 143
    after a signal. Raises what `work` raises once that is recorded,
    `SystemHaltedError` where nothing may begin, and `DependencyUnavailableError` where the run cannot be registered; then nothing
    has begun.
    """
    watched = sys.stderr is not None and sys.stderr.isatty()
    last_resort = _LastResort()

    async def under(interruption: Interruption) -> int:
        from api.bootstrap.runs import open_run
        from application.services.run_holding import hold_run
        from application.services.stop_signal import StopSignal

        try:
            async with open_run(settings, kind, arguments) as opened:
                stop = StopSignal()
                last_resort.watch(opened.record, opened.halt)
                async with _stopped_by(interruption, stop):
                    found = await hold_run(
                        opened.record, work, stop=stop, halt=opened.halt, show=show if watched else None
                    )
                    # While a signal is only noted, and before anything is waited for that the work may have left behind.
                    _print(found, as_json=as_json, render=render)
        except asyncio.CancelledError:
            last_resort.expect_end()
            raise
        if found.abandoned:
            last_resort.expect_end()
        return _code_of(found.ending)

    try:
        return run_interruptible(under)
    finally:
        last_resort.close()


@asynccontextmanager
async def _stopped_by(interruption: Interruption, stop: StopSignal) -> AsyncIterator[None]:
    """Within it the first signal asks the work to wind up, and the second ends it."""
    from application.services.stop_signal import StopReason

    async def heed() -> None:
        await interruption.wait()
        stop.set(StopReason.CANCELLED)

    heeding = asyncio.create_task(heed())
    try:
        with interruption.winding_up():
            yield
    finally:
        heeding.cancel()
        await asyncio.gather(heeding, return_exceptions=True)


class _LastResort(threading.Thread):
    """Ends the process where its work lets nobody else do so: it hangs although it is halted, orphaned, or was told twice to leave."""

    def __init__(self) -> None:
        super().__init__(name="last-resort", daemon=True)
        self._closing = threading.Event()
        self._expected = threading.Event()
        self._record: RunRecord | None = None
        self._halt: _WatchedHalt | None = None

    def watch(self, record: RunRecord, halt: _WatchedHalt) -> None:
        """Begin."""
        self._record, self._halt = record, halt
        self.start()

    def expect_end(self) -> None:
        """The end is due now, whatever else is known."""
        self._expected.set()

    def close(self) -> None:
        """The work is over, and so is this."""
        self._closing.set()
        if self.ident is not None:
            self.join()

    def run(self) -> None:
        """Look until there is nothing to look for."""
        due: float | None = None
        while not self._closing.wait(_LOOK_S):
            status, reason = self._hopeless()
            if status is None:
                due = None
            elif due is None:
                due = time.monotonic() + (_AT_ONCE_S if self._expected.is_set() else _LAST_RESORT_S)
            elif time.monotonic() >= due:
                self._leave(status, reason)

    def _hopeless(self) -> tuple[DeliberationStatus | None, str]:
        from application.ports.run_registry import Unwanted
        from domain.models.halt import HaltCondition

        if self._halt is not None and self._halt.state.condition is HaltCondition.HALTED:
            return DeliberationStatus.HALTED, "the system was halted"
        if self._expected.is_set():
            return DeliberationStatus.CANCELLED, "it was interrupted"
        if self._record is not None and self._record.unwanted() is Unwanted.ORPHANED:
            return DeliberationStatus.CANCELLED, Unwanted.ORPHANED.value
        return None, ""

    def _leave(self, status: DeliberationStatus, reason: str) -> NoReturn:
        if self._record is not None:
            self._record.end(status, at=datetime.now(UTC), reason=f"{reason}; its work hung and was left")
        # Where the server is gone, nobody may be left who hears it.
        with contextlib.suppress(OSError, ValueError):
            complain(f"{reason}; the work hangs and is left as it is")
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(ExitCode.ENDED_BADLY if status is DeliberationStatus.HALTED else ExitCode.INTERRUPTED)


def _code_of(ending: RunEnding) -> ExitCode:
    if ending.status is DeliberationStatus.COMPLETED:
        return ExitCode.DONE
    failure = ending.result.get("failure")
    kind = failure.get("kind") if isinstance(failure, dict) else None
    if ending.status is DeliberationStatus.FAILED and kind == BusUnavailableError.slug:
        return ExitCode.DEPENDENCY_AWAY
    return ExitCode.ENDED_BADLY


def _print(found: HeldRun, *, as_json: bool, render: Render) -> None:
    for problem in found.unrecorded:
        complain(f"of this run {problem}")
    result = found.ending.result
    if not result:
        complain(f"the run ended as {found.ending.status.value}, and nothing was counted")
        result = {"status": found.ending.status.value}
    elif not as_json:
        render(result)
    if as_json:
        print_document(result)
