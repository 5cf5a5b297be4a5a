"""Observations by upper bound, as Prometheus counts them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """Counts each observation once, below the first of its ascending `bounds` that reaches it; callers hold a lock."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def sample(self) -> tuple[list[tuple[str, float]], float]:
        """The cumulative buckets, `+Inf` last, and the sum of all observations."""
        buckets, reached = [], 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            reached += count
            buckets.append(("+Inf" if bound == math.inf else repr(float(bound)), float(reached)))
        return buckets, self._total
