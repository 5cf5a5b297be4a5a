"""One limiter's talk with the processes that share its limits, and what becomes of it while they cannot be asked."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Coroutine, Sequence
from typing import Any, Protocol

from application.ports.clock import Clock
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.orchestrators.allowance import Allowance
from infrastructure.orchestrators.call_book import CallBook
from infrastructure.orchestrators.fair_line import Waiter
from infrastructure.orchestrators.rate_window import Call
from infrastructure.orchestrators.shared_pacing import Asking, Leave, SharedPacing

__all__ = ["Conversation", "Pair"]

_logger = logging.getLogger(__name__)

_AWAY_S = 1.0
_MOST_TOLD = 5_000

Pair = tuple[Waiter, Call]


class _Limiter(Protocol):
    def next_few(self, now: float) -> Sequence[Pair]: ...
    def answer(self, now: float, granted: int) -> None: ...
    def look(self, now: float) -> None: ...


class Conversation:
    """Asks leave of all processes for those whose turn it is, one exchange at a time, and none while there is nothing to say.

    When they cannot be asked, that is said once in the log, and the book keeps to its own share from then on; every second
    they are tried again, and told first what went out meanwhile.
    """

    def __init__(
        self,
        name: str,
        pacing: SharedPacing,
        allowance: Allowance,
        book: CallBook,
        limiter: _Limiter,
        *,
        clock: Clock,
    ) -> None:
        self.are_away = False
        self.open_at = -math.inf
        self._name = name
        self._pacing = pacing
        self._allowance = allowance
        self._book = book
        self._limiter = limiter
        self._clock = clock
        self._talk: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._corrections: dict[int, int | None] = {}
        self._pause_is_news = False
        self._closed = False

    def correct(self, call: Call, tokens: int | None) -> None:
        """The call took that many tokens, or was not made, which is None."""
        self._corrections[call.serial] = tokens
        # What it gave back may be enough for whoever is next.
        self.open_at = -math.inf

    def pause(self) -> None:
        """The pause of the book is news to the others."""
        self._pause_is_news = True

    def go_on(self, now: float) -> None:
        """Say what there is to say."""
        if self._closed or self._talk is not None:
            return
        if self._limiter.next_few(now) or self._corrections or self._pause_is_news:
            self._start(self._exchange())

    async def close(self) -> None:
        """Break off. May be called twice."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._talk is not None:
            self._talk.cancel()
            await asyncio.wait([self._talk])

    def _start(self, talk: Coroutine[Any, Any, None]) -> None:
        self._talk = asyncio.get_running_loop().create_task(talk, name=f"limiter {self._name}")

    async def _exchange(self) -> None:
        try:
            while not self.are_away:
                now = self._clock.monotonic()
                asked = [(call.serial, call.tokens) for _, call in self._limiter.next_few(now)]
                if not (asked or self._corrections or self._pause_is_news):
                    return
                leave = await self._ask(asked)
                if leave is None:
                    self._lost()
                else:
                    self._heard(asked, leave)
        finally:
            self._talk = None
            # Nobody is asked for any more, should this have been broken off.
            self._limiter.answer(self._clock.monotonic(), 0)
        self._limiter.look(self._clock.monotonic())

    async def _come_back(self) -> None:
        now = self._clock.monotonic()
        recent = self._book.recent(now)[-_MOST_TOLD:]
        self._pause_is_news = True
        try:
            leave = await self._ask((), sent=[(call.serial, call.tokens, now - call.at) for call in recent])
            if leave is None:
                self._try_later()
                return
            self.are_away, self._book.is_whole = False, True
            _logger.info("%r shares its limits with other processes again", self._name)
            self._heard((), leave)
        finally:
            self._talk = None
        self._limiter.look(self._clock.monotonic())

    async def _ask(self, calls: Sequence[tuple[int, int]], sent: Sequence[tuple[int, int, float]] = ()) -> Leave | None:
        """What the others say; None if they cannot be asked."""
        pace, allowance = self._book.pace, self._allowance
        asking = Asking(
            pace.per_minute(allowance.requests_per_minute),
            pace.per_minute(allowance.tokens_per_minute),
            calls=calls,
            sent=sent,
            corrections=self._corrections,
            pause_s=max(0.0, pace.paused_until - self._clock.monotonic()) if self._pause_is_news else 0.0,
        )
        self._corrections, self._pause_is_news = {}, False
        try:
            return await self._pacing.ask(self._name, asking)
        except DependencyUnavailableError as error:
            # Perhaps it was heard and the answer was lost: what is told twice counts once, and those asked for do not go by it.
            self._corrections = {**asking.corrections, **{serial: None for serial, _ in calls}, **self._corrections}
            if not self.are_away:
                _logger.warning("%s %r is asked at %g of its limits meanwhile.", error, self._name, allowance.share)
            return None

    def _heard(self, asked: Sequence[tuple[int, int]], leave: Leave) -> None:
        now = self._clock.monotonic()
        pace = self._book.pace
        pace.pause(now, leave.pause_s)
        # What the provider refused meanwhile holds for these too.
        granted = 0 if pace.paused_until > now else leave.granted
        self._corrections |= {serial: None for serial, _ in asked[granted : leave.granted]}
        if leave.granted < len(asked):
            self.open_at = now + leave.wait_s
        self._limiter.answer(now, granted)

    def _lost(self) -> None:
        self.are_away, self._book.is_whole = True, False
        self.open_at = -math.inf
        self._limiter.answer(self._clock.monotonic(), 0)
        self._try_later()

    def _try_later(self) -> None:
        if not self._closed:
            self._retry = asyncio.get_running_loop().call_later(_AWAY_S, lambda: self._start(self._come_back()))
