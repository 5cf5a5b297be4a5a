"""The way between the service's loop and that of the crews: neither is woken more often than needed, and the service's goes first."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

__all__ = ["Crossing", "Letterbox", "settle"]

# Of the crews' work before the service's loop is let go first again: some three agents' worth. To ask for leave is work as well,
# for both loops; and what the service's loop waits for meanwhile is less than it notices.
_SLICE_S = 0.001


class Letterbox:
    """Has functions called in one loop, in the order in which any thread posts them.

    A loop that is woken gives the interpreter away and waits for it again: so it is woken once for all that come until it looks.
    What is called sees none of its poster's context variables. Nothing is called any more once the loop is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._is_woken = False

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have `function` called in the loop, soon; to be called in any thread."""
        if self._loop.is_closed():
            return
        self._posted.append((function, arguments))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Before it looks: whoever posts from now on wakes it again, at worst for nothing.
        self._is_woken = False
        while self._posted:
            function, arguments = self._posted.popleft()
            self._loop.call_soon(function, *arguments, context=Context())


class Crossing:
    """Both letterboxes, and the order in which crews may keep the interpreter busy."""

    def __init__(
        self, *, to_service: Letterbox, to_crews: Letterbox, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`now` gives seconds of a clock that never goes back."""
        self.to_service = to_service
        self.to_crews = to_crews
        self._now = now
        self._until = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def take_turn(self) -> None:
        """Wait in the loop of the crews until no other crew waits before this one, and the service's loop did what it had to do."""
        async with self._one_at_a_time:
            if self._now() < self._until:
                return
            gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.to_service.post(self.to_crews.post, settle, gone, None)
            await gone
            self._until = self._now() + _SLICE_S


def settle(future: asyncio.Future[Any], result: object) -> None:
    """Set that result, unless nobody waits for it any more; to be called in the future's loop."""
    if not future.done():
        future.set_result(result)
