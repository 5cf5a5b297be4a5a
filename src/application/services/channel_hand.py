"""Does things with a place that may hang, one at a time, in threads that nobody waits for longer than is good."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["ChannelHand"]

_T = TypeVar("_T")


class ChannelHand:
    """Runs one blocking call at a time. Never waits for a shared pool of threads, nor keeps the process from leaving.

    Whoever comes while a call hangs is refused when that call has not ended within its own patience.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = asyncio.Lock()
        self._pending: asyncio.Future[None] | None = None

    async def do(self, work: Callable[[], _T], *, timeout_s: float) -> _T:
        """What `work` returns or raises. Raises `TimeoutError` after `timeout_s` seconds; the call itself then goes on unheard."""
        async with asyncio.timeout(timeout_s), self._busy:
            if self._pending is not None:
                await asyncio.shield(self._pending)
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            result: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
            self._pending = ended
            _run(work, result, ended, name=f"conclave-halt-{self._name}")
            return await result


def _run(work: Callable[[], _T], result: asyncio.Future[_T], ended: asyncio.Future[None], *, name: str) -> None:
    loop = result.get_loop()

    def settle(value: _T | None, error: BaseException | None) -> None:
        if not ended.done():
            ended.set_result(None)
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]  # without an error there is a value, which may be None

    def run() -> None:
        try:
            outcome: tuple[_T | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            outcome = (None, error)
        # A loop that is closed has nobody left to hear the outcome.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *outcome)

    # A daemon, because a thread stuck in a system call must not keep the process from leaving.
    threading.Thread(target=run, name=name, daemon=True).start()
