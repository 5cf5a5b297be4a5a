"""The one retry policy: how often an agent is asked, and how long to wait in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RetryPolicy"]

_MAX_DOUBLINGS = 64


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off with full jitter; a far end that names a time is waited for exactly that long, and a jitter more.

    Full jitter: a uniform draw from 0 to min(cap, base * 2^attempt) seconds (Brooker, AWS Architecture Blog, 2015).
    """

    base_s: float = 0.25
    cap_s: float = 8.0
    draw: Callable[[], float] = random.random

    def delay(self, attempt: int, retry_after_s: float | None) -> float:
        """Seconds to wait after the `attempt`-th attempt (from 1) failed."""
        # Beyond that many doublings every pause is the longest one, and in the end no float holds the number.
        jitter: float = self.draw() * min(self.cap_s, self.base_s * 2 ** min(attempt - 1, _MAX_DOUBLINGS))
        return jitter if retry_after_s is None else max(0.0, retry_after_s) + jitter
