"""An event loop whose clock jumps to the next timer, so that hours pass in milliseconds and nothing ever sleeps."""

from __future__ import annotations

import asyncio
import selectors
import time
from asyncio.events import AbstractEventLoop
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["VirtualClock", "VirtualTimeLoop", "run_in_virtual_time"]

_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")

_WEEK_S = 7 * 86_400.0
_Ready = list[tuple[selectors.SelectorKey, int]]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs timers in their order without waiting for them: `time()` starts at 0 and moves only when nothing else can run.

    File descriptors are polled before each jump, never waited for, so both ends of a connection have to live in this loop.
    Work that `run_in_executor` handed to a thread is waited for, `thread_patience_s` real seconds at most. A thread that
    the loop did not start (a database driver's own, say) is unknown to it: its `call_soon_threadsafe` is heard, but at
    whatever time the clock has jumped to by then, or never; that is not supported.

    When nothing is ready, nothing is scheduled and no thread works, or when `horizon_s` virtual seconds have passed (timers
    that renew themselves for ever would hide the same fault), `RuntimeError` is raised: a deadlock would otherwise hang.
    """

    def __init__(self, *, thread_patience_s: float = 10.0, horizon_s: float = _WEEK_S) -> None:
        self._virtual_now = 0.0
        self._working_threads = 0
        self._thread_patience_s = thread_patience_s
        self._horizon_s = horizon_s
        super().__init__(_JumpingSelector(self._idle))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual_now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Arguments], _Result], *args: *_Arguments
    ) -> asyncio.Future[_Result]:
        """Call `func` in a thread; until it ends the clock waits for it in real time."""
        future = super().run_in_executor(executor, func, *args)
        self._working_threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, *timeout: Any, **named: Any) -> None:
        """Wait for the threads of the default executor, in real time."""
        self._working_threads += 1
        try:
            await super().shutdown_default_executor(*timeout, **named)
        finally:
            self._working_threads -= 1

    def _thread_ended(self, _: asyncio.Future[Any]) -> None:
        self._working_threads -= 1

    def _idle(self, timeout: float | None, wait: Callable[[float], _Ready]) -> _Ready:
        """Nothing is ready now; the next timer is `timeout` seconds away, None when there is none."""
        if self._working_threads and (ready := wait(self._thread_patience_s)):
            return ready
        if timeout is None:
            raise RuntimeError(f"deadlock: nothing is ready or scheduled at {self._virtual_now:g} s; {self._waiting()}")
        if self._virtual_now + timeout > self._horizon_s:
            raise RuntimeError(f"deadlock: only timers ran up to {self._horizon_s:g} s; {self._waiting()}")
        self._virtual_now += timeout
        return []

    def _waiting(self) -> str:
        names = sorted(task.get_name() for task in asyncio.all_tasks(self))
        shown = ", ".join(repr(name) for name in names[:5])
        return f"{len(names)} tasks wait{': ' + shown if names else ''}"


class _JumpingSelector(selectors.BaseSelector):
    """Polls real file descriptors; where it would have to wait it asks `idle`, which may advance the clock or wait after all."""

    def __init__(self, idle: Callable[[float | None, Callable[[float], _Ready]], _Ready]) -> None:
        self._real = selectors.DefaultSelector()
        self._idle = idle

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> _Ready:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        return self._idle(timeout, self._wait)

    def _wait(self, seconds: float) -> _Ready:
        # A real selector may return early and empty-handed (a signal, a rounded timeout).
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if ready := self._real.select(left):
                return ready
        return []

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualClock:
    """The clock of a virtual loop: the time of day starts at `start` and moves with the loop's time."""

    def __init__(self, loop: AbstractEventLoop | None = None, *, start: datetime | None = None) -> None:
        self._loop = loop
        self._start = start if start is not None else datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The time of day, in UTC, as much later than the start as the loop's time."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """The loop's time in seconds: that of the loop given, else of the running one."""
        return (self._loop if self._loop is not None else asyncio.get_running_loop()).time()


def run_in_virtual_time(main: Coroutine[Any, Any, _Result]) -> _Result:
    """The result of `main`, run in a `VirtualTimeLoop` of its own that is closed afterwards."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
