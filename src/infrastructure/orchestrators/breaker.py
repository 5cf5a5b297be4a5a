"""Stops asking a model that keeps failing, and finds out with one call at a time when it is back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState

__all__ = ["Breaker", "BreakerState", "BreakerView", "Passage"]

_FAILURES_TO_OPEN = 5
_FAILING_S = 5.0
_OPEN_S = 15.0
_LONGEST_OPEN_S = 120.0
_LONGEST_WAIT_ASKED_S = 3600.0
_JITTER = 0.1

# No call after these goes better until somebody changes something.
_OPENING_AT_ONCE = frozenset({"unauthorised", "quota_exhausted", "unknown_model"})
# Failures that another attempt does not mend, and still of the far end, not of the one call.
_LASTING = frozenset({"certificate_refused", "redirect_refused", "not_found", "no_model", "local_model_ended"})
# The far end is up and said what it did not like about this call.
_ANSWERED = frozenset({"unsupported_parameter"})
# Nothing was sent, so nothing was learnt.
_NOT_ASKED = frozenset({"closed", "deadline", "throttled", "breaker_open", "client_error", "not_recorded"})


class BreakerState(StrEnum):
    """Closed lets every call pass, open none, half-open one at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerView:
    """How a breaker stands: failures since the last answer, seconds until a call is let through to try, and what failed last."""

    state: BreakerState
    failures: int
    opens_in_s: float
    cause: str | None


class Breaker:
    """Opens after five failures in a row and stays open for 15 s, twice as long after each failed probe, at most 120 s.

    In a row are failures of calls each of which began after the one before had failed: 72 calls under way together that meet the
    same moment of weakness are one failure, and their second attempts are let through. Five failures of any calls open it as well
    once nothing but failures has come for five seconds.

    Then it is half-open: however many ask, one call is let through, and what becomes of it decides. A wait that the provider asks
    for is honoured where it is longer, up to an hour. A key that is refused, an account without credit and a model that is not
    known open it at once. A 429 and a bad ballot are no failures: the far end is up. What becomes of a call that began before the
    breaker opened changes nothing.

    One for each model. Belongs to one event loop; `clock` counts seconds and never goes back, `draw` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._clock = clock
        self._draw = draw
        self._failures = 0
        self._in_a_row = 0
        self._failing_since = 0.0
        self._openings = 0
        self._open_until: float | None = None
        self._cause: str | None = None
        self._probe: Passage | None = None
        # Counts how often it opened or closed: a passage of an earlier time has no say.
        self._era = 0
        # Counts the failures in a row over all times, so that a passage knows whether one came after it began.
        self._rows = 0

    @property
    def state(self) -> BreakerState:
        """How it stands now."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    @property
    def is_open(self) -> bool:
        """Whether calls are held back: it is open, or half-open and not yet proven."""
        return self._open_until is not None

    def view(self) -> BreakerView:
        """How it stands now, for whoever looks."""
        left = 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())
        return BreakerView(self.state, self._failures, left, self._cause)

    def would_let_pass(self) -> bool:
        """Whether `try_enter` would let a call through now."""
        state = self.state
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and self._probe is None)

    def try_enter(self) -> Passage | None:
        """Leave to make one call, which has to be ended, or None where the model is not asked at present."""
        if not self.would_let_pass():
            return None
        passage = Passage(self, self._era, self._rows)
        if self._open_until is not None:
            self._probe = passage
        return passage

    def _leave(self, passage: Passage) -> bool:
        """The passage is over. Whether what became of it counts."""
        if passage.era != self._era:
            return False
        if self._open_until is None:
            return True
        if self._probe is not passage:
            return False
        self._probe = None
        return True

    def _close(self) -> None:
        if self._open_until is not None:
            self._era += 1
        self._open_until = None
        self._failures = self._in_a_row = self._openings = 0
        self._cause = None

    def _count(self, kind: str, wait_s: float | None, *, began: int) -> None:
        now = self._clock()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self._cause = kind
        if began == self._rows:
            self._in_a_row += 1
            self._rows += 1
        is_failing = self._failures >= _FAILURES_TO_OPEN and now - self._failing_since >= _FAILING_S
        if (
            self._open_until is not None
            or self._in_a_row >= _FAILURES_TO_OPEN
            or is_failing
            or kind in _OPENING_AT_ONCE
        ):
            self._openings += 1
            self._open(wait_s)

    def _open(self, wait_s: float | None) -> None:
        # Twice as long each time, without a power that overflows after a thousand failed probes.
        stay = min(_OPEN_S * 2 ** min(max(self._openings - 1, 0), 16), _LONGEST_OPEN_S)
        stay *= 1 - _JITTER + 2 * _JITTER * self._draw()
        self._open_until = self._clock() + max(stay, min(wait_s or 0.0, _LONGEST_WAIT_ASKED_S))
        self._era += 1


class Passage:
    """Leave to make one call. It is ended once: only the first ending counts."""

    __slots__ = ("_began", "_breaker", "_is_over", "era")

    def __init__(self, breaker: Breaker, era: int, began: int) -> None:
        self._breaker = breaker
        self._is_over = False
        self._began = began
        self.era = era

    def succeeded(self) -> None:
        """The far end answered, whatever the answer is worth."""
        if self._ends():
            self._breaker._close()

    def failed(self, kind: str, *, retry_after_s: float | None = None) -> None:
        """The far end did not do its part; `retry_after_s` is the wait that it asked for."""
        if self._ends():
            self._breaker._count(kind, retry_after_s, began=self._began)

    def throttled(self, *, retry_after_s: float | None = None) -> None:
        """The far end is up and takes no more now. A probe that meets this leaves the breaker open as long as before."""
        if self._ends() and self._breaker.is_open:
            self._breaker._open(retry_after_s)

    def withdrawn(self) -> None:
        """The call was given up, or never made: nothing was learnt, and the next one may be the probe."""
        self._ends()

    def ended(self, error: AgentInvocationError | None) -> None:
        """The call came to this end; without an error it was answered. Judged by the error's kind and state."""
        if error is None:
            self.succeeded()
        elif error.kind in _NOT_ASKED:
            self.withdrawn()
        elif _is_failure(error):
            self.failed(error.kind, retry_after_s=error.retry_after_s)
        elif error.state is AgentState.THROTTLED:
            self.throttled(retry_after_s=error.retry_after_s)
        else:
            self.succeeded()

    def _ends(self) -> bool:
        if self._is_over:
            return False
        self._is_over = True
        return self._breaker._leave(self)


def _is_failure(error: AgentInvocationError) -> bool:
    if error.kind in _OPENING_AT_ONCE or error.kind in _LASTING or error.state is AgentState.TIMED_OUT:
        return True
    return error.state is AgentState.FAILED and error.retryable and error.kind not in _ANSWERED
