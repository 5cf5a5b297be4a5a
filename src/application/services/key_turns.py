"""Whose turn it is to spend of an API key: who finds nothing left waits for the calls in flight, which mostly take less than they hold."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from domain.errors.budget import BudgetExceededError

__all__ = ["KeyTurns"]


class KeyTurns:
    """First come, first served for each key, among all deliberations of a process. Belongs to one event loop.

    Calls of other processes are not waited for: nobody here hears of their end.
    """

    def __init__(self) -> None:
        self._in_flight: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, key_name: str, reserve: Callable[[], Awaitable[None]]) -> None:
        """Reserve as soon as the budget of the key lets it; `land` has to follow once, and must not wait for anybody who takes.

        Raises the `BudgetExceededError` of `reserve` when no call of the key is in flight that could still take less than it holds.
        """
        if key_name in self._waiting:
            await self._wait(key_name)
        while True:
            try:
                await reserve()
            except BudgetExceededError:
                if not self._in_flight[key_name]:
                    self._wake(key_name)
                    raise
                await self._wait(key_name, first=True)
            else:
                self._in_flight[key_name] += 1
                self._wake(key_name)
                return

    def land(self, key_name: str) -> None:
        """What a call took is settled, or it was not made after all."""
        self._in_flight[key_name] -= 1
        if not self._in_flight[key_name]:
            del self._in_flight[key_name]
        self._wake(key_name)

    def _wake(self, key_name: str) -> None:
        """Let the next one try, who lets the one behind it try if there was enough."""
        for turn in self._waiting.get(key_name, ()):
            if not turn.done():
                turn.set_result(None)
                return

    async def _wait(self, key_name: str, *, first: bool = False) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(key_name, deque())
        if first:
            queue.appendleft(turn)
        else:
            queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._forget(key_name, turn)
                self._wake(key_name)
            else:
                self._forget(key_name, turn)
            raise
        self._forget(key_name, turn)

    def _forget(self, key_name: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting[key_name]
        queue.remove(turn)
        if not queue:
            del self._waiting[key_name]
