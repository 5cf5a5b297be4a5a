"""A histogram of durations, eight buckets for each doubling of a nanosecond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import Latency
from infrastructure.population.field import BUCKETS
from infrastructure.population.rings import bucket_of, percentile_us

__all__ = ["AccessTimes"]


class AccessTimes:
    """Counts durations; what is asked of it is not above what was measured by more than an eighth."""

    def __init__(self) -> None:
        self._buckets: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)

    @property
    def count(self) -> int:
        """How many were counted."""
        return int(self._buckets.sum())

    def add(self, seconds: NDArray[np.float64], *, times: int = 1) -> None:
        """Count these, each so many times."""
        places = bucket_of(np.maximum(np.rint(seconds * 1e9), 1).astype(np.int64))
        self._buckets += times * np.bincount(places, minlength=BUCKETS)

    def latency(self) -> Latency:
        """The median and the 99th percentile, in us."""
        return Latency(percentile_us(self._buckets, 0.5), percentile_us(self._buckets, 0.99))
