"""What many viewers see is made once for all of them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

__all__ = ["SharedPictures"]

_Key = TypeVar("_Key")
_Picture = TypeVar("_Picture")


class SharedPictures(Generic[_Key, _Picture]):
    """A picture of each key, made at most once in `fresh_s` seconds and by one task at a time, however many ask for it.

    Whoever asks while it is made waits for that one. What making it raises goes to all who wait, and the next who asks tries again. Of
    more than `most` keys those that were not asked for longest are forgotten. Of one event loop.
    """

    def __init__(
        self,
        make: Callable[[_Key], Awaitable[_Picture]],
        *,
        fresh_s: float,
        most: int = 64,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._fresh_s = fresh_s
        self._most = most
        self._now = now
        self._made: OrderedDict[_Key, tuple[float, asyncio.Task[_Picture]]] = OrderedDict()

    async def get(self, key: _Key, *, at_once: bool = False) -> _Picture:
        """The picture, at most `fresh_s` seconds old; with `at_once` one that is begun now."""
        began, task = self._made.get(key, (0.0, None))
        failed = task is not None and task.done() and (task.cancelled() or task.exception() is not None)
        is_old = task is not None and task.done() and self._now() - began >= self._fresh_s
        if task is None or failed or is_old or at_once:
            task = asyncio.ensure_future(self._made_by(key))
            # Where everybody has left, nobody hears what went wrong.
            task.add_done_callback(_hear)
            self._made[key] = (self._now(), task)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        # Whoever leaves in the middle does not take it away from the others.
        return await asyncio.shield(task)

    async def _made_by(self, key: _Key) -> _Picture:
        return await self._make(key)


def _hear(task: asyncio.Task[_Picture]) -> None:
    if not task.cancelled():
        task.exception()
