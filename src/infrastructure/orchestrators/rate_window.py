"""What went out within the last minute, so that no minute ever holds more than was agreed."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

__all__ = ["MARGIN_S", "WINDOW_S", "Call", "RateWindow"]

WINDOW_S = 60.0
"""Providers count by the minute."""

MARGIN_S = 0.5
"""How much later than another call one may arrive that was sent as early: a connection to be made, a loop that is busy."""

_MOST_LOOKED_AT = 256


class Call:
    """A call that went out at `at` (monotonic seconds) and takes `tokens`. Told apart by identity, numbered by `serial`.

    `tokens_before` is what had been given to all calls up to this one, `reply_bytes` the most that its reply takes in memory.
    """

    __slots__ = ("at", "reply_bytes", "serial", "tokens", "tokens_before")

    def __init__(self, serial: int, at: float, tokens: int, reply_bytes: int = 0, tokens_before: int = 0) -> None:
        self.serial = serial
        self.at = at
        self.tokens = tokens
        self.reply_bytes = reply_bytes
        self.tokens_before = tokens_before


class RateWindow:
    """A log of the last minute, and the margin on top: strict, because each call is in it for as long as it counts.

    All of a minute's calls may go at once; then none goes until the first of them is a minute old. Limits are given with each
    question, because the pace changes them. Times are monotonic seconds and never go back from call to call.
    """

    __slots__ = ("_log", "_span_s", "_tokens")

    def __init__(self, *, span_s: float = WINDOW_S + MARGIN_S) -> None:
        self._span_s = span_s
        self._log: OrderedDict[Call, None] = OrderedDict()
        self._tokens = 0

    def __len__(self) -> int:
        """How many stand in the log; some of them may be older than a minute by now."""
        return len(self._log)

    @property
    def tokens(self) -> int:
        """Tokens of all calls in the log, real ones where they are known."""
        return self._tokens

    def recent(self, now: float) -> list[Call]:
        """What counts at `now`, the oldest first."""
        self._expire(now)
        return list(self._log)

    def add(self, call: Call) -> None:
        """A call has leave to go out now, which it says itself."""
        self._log[call] = None
        self._tokens += call.tokens

    def restamp(self, call: Call, now: float) -> None:
        """The call goes out only now: its minute begins anew."""
        if call not in self._log:
            self._log[call] = None
            self._tokens += call.tokens
        call.at = now
        self._log.move_to_end(call)

    def settle(self, call: Call, tokens: int) -> None:
        """The call took that many tokens."""
        if call in self._log:
            self._tokens += tokens - call.tokens
        call.tokens = tokens

    def forget(self, call: Call) -> None:
        """The call did not go out after all."""
        if call in self._log:
            del self._log[call]
            self._tokens -= call.tokens

    def opens_at(self, now: float, tokens: int, *, most_requests: int | None, most_tokens: int | None) -> float:
        """`now` if one more call of `tokens` fits, else a later moment at which to ask again: before it, surely none fits.

        A call of more than `most_tokens` fits when nothing else is in the log, or it would never go.
        """
        log = self._log
        if log and next(iter(log)).at <= now - self._span_s:
            self._expire(now)
        if not log:
            return now
        spare = 0 if most_requests is None else len(log) + 1 - most_requests
        excess = 0 if most_tokens is None else self._tokens + tokens - most_tokens
        if spare <= 0 and excess <= 0:
            return now
        return self._freed_at(spare, excess)

    def earliest(
        self, now: float, requests: int, tokens: int, *, most_requests: int | None, most_tokens: int | None
    ) -> float:
        """When the last of so many requests can go at the soonest, if no other goes before them.

        `tokens` is what has to fit besides what is in the log; less than nothing where some of that may yet be given back.
        """
        self._expire(now)
        minutes, spare, excess = 0, 0, 0
        if most_requests is not None:
            minutes, within = divmod(requests - 1, most_requests)
            spare = len(self._log) + within + 1 - most_requests
        if most_tokens is not None:
            excess = self._tokens + min(tokens, most_tokens) - most_tokens
        freed = self._freed_at(spare, excess) if self._log and (spare > 0 or excess > 0) else now
        return freed + minutes * self._span_s

    def _freed_at(self, spare: int, excess: int) -> float:
        """When so many requests and tokens have left the log; the time is too early where that is far back in it."""
        at = 0.0
        for gone, call in enumerate(islice(self._log, _MOST_LOOKED_AT)):
            if gone >= spare and excess <= 0:
                break
            at = call.at
            excess -= call.tokens
        return at + self._span_s

    def _expire(self, now: float) -> None:
        log, oldest = self._log, now - self._span_s
        while log:
            call = next(iter(log))
            if call.at > oldest:
                return
            del log[call]
            self._tokens -= call.tokens
