"""Ctrl-C and SIGTERM: the first asks the work to end and still be counted, the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from api.cli.exit_codes import code_of_signal

__all__ = ["Interruption", "run_interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Turns signals into an event while there is work to wind up, and into a cancellation of the task otherwise.

    Use as a context manager inside the running event loop; outside of it the signals do what they did before.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._event = asyncio.Event()
        self._task: asyncio.Task[object] | None = None
        self._winds_up = False

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.receive, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    @contextmanager
    def winding_up(self) -> Iterator[None]:
        """While this is open, the first signal is only noted: whoever opened it waits for it and ends the work."""
        self._winds_up = True
        try:
            yield
        finally:
            self._winds_up = False

    async def wait(self) -> None:
        """Return once a signal has come."""
        await self._event.wait()

    def receive(self, number: int) -> None:
        """Take note of a signal."""
        first = self.signal is None
        self.signal = self.signal or number
        self._event.set()
        if self._task is not None and not (first and self._winds_up):
            self._task.cancel()


def run_interruptible(work: Callable[[Interruption], Awaitable[int]]) -> int:
    """The exit code that `work` returns, or that of the signal that came while it ran."""
    from api.bootstrap import run

    interruption = Interruption()

    async def guarded() -> int:
        with interruption:
            return await work(interruption)

    try:
        code = run(guarded())
    except asyncio.CancelledError:
        if interruption.signal is None:
            raise
        code = 0
    return code if interruption.signal is None else code_of_signal(interruption.signal)
