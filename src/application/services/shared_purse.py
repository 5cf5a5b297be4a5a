"""The purse of a deliberation, as many agents take from it at once: who finds too little waits for what is in flight."""

from __future__ import annotations

import asyncio
from collections import deque

from domain.models.money import Hold
from domain.models.purse import Purse

__all__ = ["SharedPurse"]


class SharedPurse:
    """A call that does not fit now, and may once others have settled, waits its turn. Belongs to one event loop."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._waiting: deque[tuple[Hold, asyncio.Future[None]]] = deque()

    def try_hold(self, hold: Hold) -> bool:
        """Keep so much for a call if it is there and nobody waits."""
        return not self._waiting and self._purse.try_hold(hold) is None

    async def hold(self, hold: Hold) -> None:
        """Keep so much for a call, first come, first served. Raises `BudgetExceededError` as soon as it cannot fit any more."""
        if self.try_hold(hold):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((hold, turn))
        self._serve()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.settle(hold, tokens=0, cost=0)
            else:
                self._waiting = deque(waits for waits in self._waiting if waits[1] is not turn)
                self._serve()
            raise

    def settle(self, hold: Hold, *, tokens: int, cost: int) -> None:
        """The call took so much of what it held (picodollars); those who wait are served."""
        self._purse.settle(hold, tokens=tokens, cost=cost)
        if self._waiting:
            self._serve()

    def _serve(self) -> None:
        while self._waiting:
            hold, turn = self._waiting[0]
            if not turn.done():
                problem = self._purse.try_hold(hold)
                if problem is None:
                    turn.set_result(None)
                elif not self._purse.calls_held or self._purse.lacks(hold, at_best=True) is not None:
                    turn.set_exception(problem)
                else:
                    return
            self._waiting.popleft()
