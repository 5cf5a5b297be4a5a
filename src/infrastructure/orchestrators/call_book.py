"""Keeps count of what is in flight and what went out, and says whether one more call may go."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime

from infrastructure.orchestrators.allowance import Allowance
from infrastructure.orchestrators.fair_line import FairLine
from infrastructure.orchestrators.pace import Pace, Quota
from infrastructure.orchestrators.rate_headers import remainders
from infrastructure.orchestrators.rate_window import Call, RateWindow

__all__ = ["CallBook"]


class CallBook:
    """Every limit of one model in one place. All times are monotonic seconds."""

    def __init__(self, allowance: Allowance, *, is_whole: bool, time_of_day: Callable[[], datetime]) -> None:
        self.pace = Pace()
        self.in_flight = 0
        self.serial = 0
        self._allowance = allowance
        self.is_whole = is_whole
        self._time_of_day = time_of_day
        self._requests_left = Quota()
        self._tokens_left = Quota()
        has_window = allowance.requests_per_minute is not None or allowance.tokens_per_minute is not None
        self._window = RateWindow() if has_window else None
        self._tokens_in_flight = 0
        self._bytes = 0
        self._tokens_given = 0

    def opens_at(self, now: float, tokens: int, reply_bytes: int) -> float:
        """`now` if such a call may go, else when to look again; infinite, if a call has to end first."""
        allowance, pace = self._allowance, self.pace
        most = allowance.max_concurrency
        if self.in_flight >= (most if pace.ratio >= 1 else pace.connections(most)):
            return math.inf
        most_bytes = allowance.bytes_in_memory
        # What is larger than all the memory goes alone, or it would never go.
        if most_bytes is not None and self.in_flight and self._bytes + reply_bytes > most_bytes:
            return math.inf
        at = max(now, pace.paused_until, self._requests_left.opens_at(now, 1), self._tokens_left.opens_at(now, tokens))
        if self._window is not None and at <= now:
            return self._window.opens_at(
                now,
                tokens,
                most_requests=pace.per_minute(self._most_requests),
                most_tokens=pace.per_minute(self._most_tokens),
            )
        return at

    def earliest(self, now: float, tokens: int, *, line: FairLine, group: str, batch: str) -> float:
        """Before this, such a call surely gets no leave if it joins the line now."""
        at = max(now, self.pace.paused_until, self._requests_left.opens_at(now, 1))
        window = self._window
        if window is None:
            return at
        most_requests, most_tokens = self._most_requests, self._most_tokens
        # What is in flight may give back what it was estimated too high, and the pace may rise.
        tokens -= self._tokens_in_flight
        if (most_requests is None or len(window) + len(line) < most_requests) and (
            most_tokens is None or window.tokens + tokens <= most_tokens
        ):
            return at
        ahead = line.ahead_of(group, batch)
        return max(at, window.earliest(now, ahead + 1, tokens, most_requests=most_requests, most_tokens=most_tokens))

    def begin(self, now: float, tokens: int, reply_bytes: int) -> Call:
        """The call has leave."""
        self.serial += 1
        self.in_flight += 1
        self._tokens_in_flight += tokens
        self._tokens_given += tokens
        self._bytes += reply_bytes
        self._requests_left.take(1)
        self._tokens_left.take(tokens)
        call = Call(self.serial, now, tokens, reply_bytes, self._tokens_given)
        if self._window is not None:
            self._window.add(call)
        return call

    def undo(self, call: Call) -> None:
        """The call is not made: nothing of it stays behind."""
        self._over(call)
        self._requests_left.take(-1)
        self._tokens_left.take(-call.tokens)
        if self._window is not None:
            self._window.forget(call)

    def sent(self, call: Call, now: float) -> None:
        """The call goes out only now."""
        if self._window is not None:
            self._window.restamp(call, now)

    def end(
        self,
        call: Call,
        now: float,
        *,
        tokens_used: int | None,
        throttled: bool,
        retry_after_s: float | None,
        headers: Mapping[str, str] | None,
    ) -> bool:
        """The call is over, and that is what is known of it. Whether all have to wait longer than before."""
        self._over(call)
        if headers:
            self._told(call, now, headers)
        if tokens_used is not None and tokens_used != call.tokens and self._window is not None:
            self._window.settle(call, max(0, tokens_used))
        if throttled:
            return self.pace.refused(now, call.serial, self.serial, retry_after_s)
        if retry_after_s is not None:
            return self.pace.pause(now, retry_after_s)
        if tokens_used:
            self.pace.succeeded(call.serial)
        return False

    def recent(self, now: float) -> list[Call]:
        """What went out within the last minute, the oldest first; nothing where no minute's limit is to be kept."""
        return [] if self._window is None else self._window.recent(now)

    @property
    def is_whole(self) -> bool:
        """Whether the minute's limits are this process' own as far as it has to see to them, or its share alone."""
        return self._is_whole

    @is_whole.setter
    def is_whole(self, is_whole: bool) -> None:
        allowance = self._allowance
        self._is_whole = is_whole
        requests, tokens = allowance.requests_per_minute, allowance.tokens_per_minute
        self._most_requests = requests if is_whole else allowance.own(requests)
        self._most_tokens = tokens if is_whole else allowance.own(tokens)

    def _over(self, call: Call) -> None:
        self.in_flight -= 1
        self._tokens_in_flight -= call.tokens
        self._bytes -= call.reply_bytes

    def _told(self, call: Call, now: float, headers: Mapping[str, str]) -> None:
        requests, tokens = remainders(headers, now=self._time_of_day)
        if requests is not None:
            self._requests_left.told(now, requests, serial=call.serial, since=self.serial - call.serial)
        if tokens is not None:
            since = self._tokens_given - call.tokens_before
            self._tokens_left.told(now, tokens, serial=call.serial, since=since)
