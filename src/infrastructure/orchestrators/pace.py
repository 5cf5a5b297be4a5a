"""How fast a provider may be asked at present, as it said itself: slower at once when it complains, faster again bit by bit."""

from __future__ import annotations

import math

from infrastructure.orchestrators.rate_headers import Remainder

__all__ = ["LONGEST_PAUSE_S", "SLOWEST", "Pace", "Quota"]

SLOWEST = 0.05
"""The pace never falls below this, so that calls go on and can succeed."""

LONGEST_PAUSE_S = 86_400.0
"""A provider that asks for more is asked again after a day."""

_SLOWER = 0.7
_FASTER = 0.02
_FIRST_PAUSE_S = 1.0
_LONGEST_OWN_PAUSE_S = 30.0
_LONGEST_QUOTA_S = 60.0


class Pace:
    """A ratio of 0.05 to 1 by additive increase and multiplicative decrease (Chiu and Jain, 1989), and a pause.

    However many calls of one flight are refused, that is one congestion: a refusal counts against the pace only if its call was
    sent after the last decrease, and so does a success for it. Calls are numbered in the order in which they got leave.
    """

    __slots__ = ("_congested_at", "_refusals", "paused_until", "ratio")

    def __init__(self) -> None:
        self.ratio = 1.0
        self.paused_until = -math.inf
        self._congested_at = -1
        self._refusals = 0

    def pause(self, now: float, seconds: float) -> bool:
        """Nobody goes for so long; whether that is news. What is no number of seconds is ignored."""
        if not seconds > 0:
            return False
        until = now + min(seconds, LONGEST_PAUSE_S)
        if until <= self.paused_until:
            return False
        self.paused_until = until
        return True

    def refused(self, now: float, serial: int, latest: int, retry_after_s: float | None) -> bool:
        """The provider refused that call as too many; `latest` got leave last. Whether the pause is longer now.

        Where the provider does not say how long to wait, it is a second, and twice as long each time, up to 30.
        """
        is_new = serial > self._congested_at
        if is_new:
            self._congested_at = latest
            self._refusals += 1
            self.ratio = max(SLOWEST, self.ratio * _SLOWER)
        if retry_after_s is not None and retry_after_s >= 0:
            return self.pause(now, retry_after_s)
        if not is_new:
            return False
        return self.pause(now, min(_LONGEST_OWN_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(self._refusals - 1, 10)))

    def succeeded(self, serial: int) -> None:
        """The provider answered that call."""
        if serial > self._congested_at:
            self._refusals = 0
            self.ratio = min(1.0, self.ratio + _FASTER)

    def connections(self, most: int) -> int:
        """How many calls may be in flight where `most` may at full pace; at least one."""
        return most if self.ratio >= 1 else max(1, math.ceil(most * self.ratio))

    def per_minute(self, most: int | None) -> int | None:
        """How much of a minute's limit may be used; at least one.

        Untouched down to half the pace: a first congestion is answered by fewer connections and by the pause, and only a
        provider that goes on refusing is taken to have a lower limit than was configured.
        """
        return most if most is None or self.ratio >= 0.5 else max(1, int(most * 2 * self.ratio))


class Quota:
    """What the provider said is left, less what went out since the call whose reply said it."""

    __slots__ = ("_left", "_serial", "_until")

    def __init__(self) -> None:
        self._left = 0
        self._serial = -1
        self._until = -math.inf

    def told(self, now: float, told: Remainder, *, serial: int, since: int) -> None:
        """The reply to the call `serial` told that; `since` were taken after that call. Older news than the last is ignored.

        Holds a minute at most: some providers tell when all is renewed, though a part of it is much earlier.
        """
        if serial >= self._serial:
            self._serial = serial
            self._left = told.left - since
            self._until = now + min(told.reset_s, _LONGEST_QUOTA_S)

    def take(self, amount: int) -> None:
        """So much goes out, or comes back where it is negative."""
        self._left -= amount

    def opens_at(self, now: float, amount: int) -> float:
        """`now` if so much is left, else when it is renewed."""
        return now if self._left >= amount or self._until <= now else self._until
