"""Holds calls back to what a provider allows for a model, for everybody who asks it, and fairly among them."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Mapping

from application.ports.clock import Clock, SystemClock
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.allowance import WAIT_BOUNDS_S, Allowance, LimiterState
from infrastructure.orchestrators.call_book import CallBook
from infrastructure.orchestrators.conversation import Conversation, Pair
from infrastructure.orchestrators.fair_line import FairLine, Waiter
from infrastructure.orchestrators.rate_window import Call
from infrastructure.orchestrators.shared_pacing import SharedPacing

__all__ = ["WAIT_BOUNDS_S", "Allowance", "LimiterState", "Place", "ProviderLimiter"]

_AT_ONCE = 32
# Timers of event loops may be early by the resolution of their clock; far less than the window's margin.
_TICK_S = 1e-6


class Place:
    """Leave to make one call, which is in flight until `leave`, or `withdraw` if it is not made after all. A second does nothing."""

    __slots__ = ("_call", "_limiter")

    def __init__(self, limiter: ProviderLimiter, call: Call) -> None:
        self._limiter: ProviderLimiter | None = limiter
        self._call = call

    def sent(self) -> None:
        """The request goes out only now: the provider's minute counts from here, where something came between."""
        if self._limiter is not None:
            self._limiter._sent(self._call)

    def withdraw(self) -> None:
        """The call is not made: it counts nowhere, and somebody else may go."""
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._withdrawn(self._call)

    def leave(
        self,
        tokens_used: int | None = None,
        *,
        throttled: bool = False,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """The call is over: what it took, None where nobody knows, and what the provider said about its limits.

        `throttled` is an answer that it is asked too fast (429). Neither waits nor raises.
        """
        limiter, self._limiter = self._limiter, None
        if limiter is not None:
            limiter._left(self._call, tokens_used, throttled, retry_after_s, headers)


def _future() -> asyncio.Future[Call | None]:
    return asyncio.get_running_loop().create_future()


class ProviderLimiter:
    """At no time more calls in flight, in no 60 s more requests or tokens than `allowance` says, as the far end counts them.

    Slower for everyone as soon as the provider complains, and nobody goes before the time that it names; faster again with
    each success (`Pace`). Whoever waits is served in turn, API key by API key and batch by batch (`FairLine`). Tokens count
    as estimated until what was used is known. One per model, and of one event loop; it keeps one timer while somebody waits.

    With `shared`, requests and tokens a minute and pauses hold for all processes that share it under the same name. While
    that is away each takes its own share, so that in the minute after it went away, all together may take up to twice the limit.
    """

    def __init__(
        self, name: str, allowance: Allowance, *, clock: Clock | None = None, shared: SharedPacing | None = None
    ) -> None:
        self.name = name
        self.allowance = allowance
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._book = CallBook(allowance, is_whole=shared is not None, time_of_day=self._clock.now)
        self._line = FairLine()
        self._few: list[Pair] = []
        self._soonest_until = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._waits = [0] * (len(WAIT_BOUNDS_S) + 1)
        self._waited_s = 0.0
        self._closed = False
        self._others = (
            None if shared is None else Conversation(name, shared, allowance, self._book, self, clock=self._clock)
        )

    @property
    def state(self) -> LimiterState:
        """How it stands now. To be read in its event loop."""
        book = self._book
        now = self._clock.monotonic() if book.serial else -math.inf
        recent = book.recent(now)
        until = book.pace.paused_until
        return LimiterState(
            pace=book.pace.ratio,
            in_flight=book.in_flight,
            waiting=len(self._line),
            paused_s=until - now if until > now else 0.0,
            paused_until_s=until if until > now else None,
            requests=len(recent),
            tokens=sum(call.tokens for call in recent),
            shared=None if self._others is None else not self._others.are_away,
            waits=tuple(self._waits),
            waited_s=self._waited_s,
        )

    async def enter(
        self, tokens: int, *, group: str, batch: str, until: float | None = None, reply_bytes: int = 0
    ) -> Place:
        """Wait for leave to make a call that takes `tokens` by estimate and whose reply has at most `reply_bytes`.

        Turns go round among the groups (API keys), and in a group among its batches. Raises `AgentInvocationError`, nothing used:
        of kind `throttled` (state `throttled`) as soon as a limit is known to keep it back past `until` (a monotonic time); of
        kind `deadline` (state `timed_out`) once `until` has come, whatever it waited for; of kind `closed` when the limiter is
        closed. A wait that is cancelled leaves nothing behind.
        """
        if self._closed:
            raise self._closed_error()
        now = self._clock.monotonic()
        if until is not None and until < now:
            raise self._too_late(until, now)
        if not self._line and self._asked is None and self._book.opens_at(now, tokens, reply_bytes) <= now + _TICK_S:
            self._waits[0] += 1
            return Place(self, self._book.begin(now, tokens, reply_bytes))
        if until is not None and self._earliest(now, tokens, group, batch) > until + _TICK_S:
            raise self._too_late(until, now)
        waiter = Waiter(_future(), tokens, reply_bytes, group=group, batch=batch, until=until, since=now)
        self._line.put(waiter)
        while (call := await self._leave(waiter, now)) is not None:
            now = self._clock.monotonic()
            if self._book.pace.paused_until <= now + _TICK_S:
                return Place(self, call)
            # The provider complained after leave was given and before this task had its turn.
            self._take_back(call)
            if self._is_hopeless(until):
                self.look(now)
                break
            waiter.future = _future()
            self._line.put_back([waiter])
        if until is None or self._closed:
            raise self._closed_error()
        raise self._too_late(until, waiter.since)

    def _is_hopeless(self, until: float | None) -> bool:
        return self._closed or (until is not None and self._book.pace.paused_until > until + _TICK_S)

    async def _leave(self, waiter: Waiter, now: float) -> Call | None:
        """Wait, standing in the line since now, until there is leave or none will come."""
        if waiter.until is not None and waiter.until < self._soonest_until:
            self._soonest_until = waiter.until
            self._set_timer(waiter.until)
        try:
            # Behind others nothing is different because of it.
            if self._line.head() is waiter:
                self.look(now)
            return await waiter.future
        except asyncio.CancelledError:
            self._gone(waiter)
            raise

    async def close(self) -> None:
        """Refuse everybody who waits, and whoever comes. Calls in flight go on and may still leave. May be called twice."""
        self._closed = True
        self._refuse(math.inf)
        self._set_timer(None)
        if self._others is not None:
            await self._others.close()

    @property
    def _asked(self) -> Conversation | None:
        """The other processes, where they can be asked."""
        return None if self._others is None or self._others.are_away else self._others

    def _earliest(self, now: float, tokens: int, group: str, batch: str) -> float:
        at = self._book.earliest(now, tokens, line=self._line, group=group, batch=batch)
        return at if self._others is None else max(at, self._others.open_at)

    def _sent(self, call: Call) -> None:
        self._book.sent(call, self._clock.monotonic())

    def _withdrawn(self, call: Call) -> None:
        self._take_back(call)
        self.look(self._clock.monotonic())

    def _left(
        self,
        call: Call,
        tokens_used: int | None,
        throttled: bool,  # noqa: FBT001 - called from `leave` alone
        retry_after_s: float | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        now = self._clock.monotonic()
        is_paused = self._book.end(
            call,
            now,
            tokens_used=tokens_used,
            throttled=throttled,
            retry_after_s=retry_after_s,
            headers=headers,
        )
        if is_paused:
            self._refuse_the_hopeless(now)
            if self._others is not None:
                self._others.pause()
        if self._asked is not None and tokens_used is not None and self.allowance.tokens_per_minute is not None:
            self._asked.correct(call, max(0, tokens_used))
        self.look(now)

    def look(self, now: float) -> None:
        """Let go who may go, and set the timer for whoever is next."""
        if self._closed:
            return
        if self._asked is not None:
            self._asked.go_on(now)
            return
        while (pair := self._next(now)) is not None:
            self._give(now, *pair)

    def next_few(self, now: float) -> list[Pair]:
        """Those whose turn it is and who may go as far as this process knows: out of the line, and in the book."""
        while len(self._few) < _AT_ONCE and (pair := self._next(now)) is not None:
            self._few.append(pair)
        return self._few

    def answer(self, now: float, granted: int) -> None:
        """The first of those few have leave of all; the others go on waiting, and it is still their turn."""
        few, self._few = self._few, []
        for waiter, call in few[:granted]:
            if waiter.future.done():
                self._take_back(call)
            else:
                self._give(now, waiter, call)
        for waiter, call in few[granted:]:
            self._book.undo(call)
            if self._closed:
                waiter.refuse()
        self._line.put_back([waiter for waiter, _ in few[granted:] if not waiter.future.done()])
        self._refuse_the_hopeless(now)

    def _next(self, now: float) -> Pair | None:
        head = self._line.head()
        while head is not None and head.future.done():
            # Cancelled in this very turn of the loop, and not yet out of the line.
            self._line.pop()
            head = self._line.head()
        if head is None:
            if not self._few:
                self._soonest_until = math.inf
                self._set_timer(None)
            return None
        at = self._book.opens_at(now, head.tokens, head.reply_bytes)
        if self._asked is not None:
            at = max(at, self._asked.open_at)
        if at > now + _TICK_S:
            self._set_timer(min(at, self._soonest_until))
            return None
        return self._line.pop(), self._book.begin(now, head.tokens, head.reply_bytes)

    def _give(self, now: float, waiter: Waiter, call: Call) -> None:
        waited = now - waiter.since
        self._waits[bisect_left(WAIT_BOUNDS_S, waited)] += 1
        self._waited_s += waited
        waiter.future.set_result(call)

    def _take_back(self, call: Call) -> None:
        """The call had leave and will not be made."""
        self._book.undo(call)
        if self._asked is not None:
            self._asked.correct(call, None)

    def _set_timer(self, at: float | None) -> None:
        timer = self._timer
        if timer is not None:
            # One that rings too early is set anew then.
            if at is not None and timer.when() <= at:
                return
            timer.cancel()
            self._timer = None
        if at is not None and at < math.inf:
            self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        if self._soonest_until <= now + _TICK_S:
            self._refuse(now + _TICK_S)
        self.look(now)

    def _refuse_the_hopeless(self, now: float) -> None:
        """Nobody goes for longer than some can wait."""
        opens_at = max(now, self._book.pace.paused_until)
        if self._asked is not None:
            opens_at = max(opens_at, self._asked.open_at)
        if self._soonest_until < opens_at:
            # Leave at the very end of one's time is still leave.
            self._refuse(math.nextafter(opens_at, -math.inf))

    def _refuse(self, until: float) -> None:
        """Those get no leave who can wait until then at most; of infinite patience is who names no time."""
        soonest = math.inf
        for waiter in [*self._line, *(waiter for waiter, _ in self._few)]:
            patience = math.inf if waiter.until is None else waiter.until
            if patience <= until:
                self._line.remove(waiter)
                waiter.refuse()
            else:
                soonest = min(soonest, patience)
        self._soonest_until = soonest

    def _gone(self, waiter: Waiter) -> None:
        """Whoever waited was cancelled, perhaps in the very moment in which it got leave."""
        future = waiter.future
        call = future.result() if future.done() and not future.cancelled() else None
        if call is not None:
            self._withdrawn(call)
        else:
            self._line.remove(waiter)
            self.look(self._clock.monotonic())

    def _too_late(self, until: float, since: float) -> AgentInvocationError:
        """No leave for whoever asked `since` then: for want of time where that is over by now, else for a limit."""
        if until <= self._clock.monotonic() + _TICK_S:
            return AgentInvocationError(
                f"the deadline came before {self.name!r} could be asked",
                kind="deadline",
                state=AgentState.TIMED_OUT,
                usage=Usage(),
            )
        return AgentInvocationError(
            f"{self.name!r} may not be asked within the {until - since:.3g} s that are left: raise its requests or tokens a "
            "minute if the provider allows more, add a model to the route, or give the deliberation more time",
            kind="throttled",
            state=AgentState.THROTTLED,
            usage=Usage(),
        )

    def _closed_error(self) -> AgentInvocationError:
        return AgentInvocationError(
            f"{self.name!r} is not asked any more, because the process stops: ask again once it runs",
            kind="closed",
            usage=Usage(),
        )
