"""How fast a bus is: latencies in logarithmic buckets and rates over the last seconds, in constant memory."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from domain.models.message import LATENCY_BOUNDS_S
from infrastructure.buses.bus_limits import RATE_WINDOW_S

__all__ = ["LatencyHistogram", "RateMeter", "cumulative"]

_FOLD_AT = 1_024
_UPPER_HALF = slice(1, None, 2) if sys.byteorder == "little" else slice(0, None, 2)
_QUANTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))


class LatencyHistogram:
    """Quantiles of durations, each within 0.4 % of the true one, whatever their number; the smallest and largest are kept exactly.

    A bucket is the upper half of the duration as an IEEE 754 single: its exponent and seven bits, so there are 128 to an octave. Durations
    are collected and sorted into buckets some hundreds at a time, because that runs in C and one at a time would not.
    """

    __slots__ = ("_buckets", "_max", "_min", "_total_s", "add", "pending")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.pending: list[float] = []
        self._min = float("inf")
        self._max = 0.0
        self._total_s = 0.0
        # For the caller that counts nanoseconds, who then has to call `fold` when `pending` has grown.
        self.add = self.pending.append

    def record(self, seconds: float) -> None:
        """Count one duration; one below 0, which clocks of two processors can show, is 0."""
        self.pending.append(seconds if seconds > 0.0 else 0.0)
        if len(self.pending) >= _FOLD_AT:
            self.fold()

    def record_many(self, seconds: Iterable[float]) -> None:
        """Count several durations, none of them below 0."""
        self.pending.extend(seconds)
        if len(self.pending) >= _FOLD_AT:
            self.fold()

    def fold(self) -> None:
        """Sort what was collected into the buckets."""
        pending = self.pending
        if not pending:
            return
        pending.sort()
        self._min = min(self._min, pending[0])
        self._max = max(self._max, pending[-1])
        self._total_s += sum(pending)
        self._buckets.update(memoryview(array("f", pending)).cast("B").cast("H")[_UPPER_HALF])
        pending.clear()

    @property
    def count(self) -> int:
        """How many durations were counted."""
        self.fold()
        return self._buckets.total()

    @property
    def total_s(self) -> float:
        """The sum of all durations, in seconds."""
        self.fold()
        return self._total_s

    def buckets(self) -> Mapping[int, int]:
        """The counts by bucket, which `merge` takes; what another process may have written down."""
        self.fold()
        return self._buckets

    def merge(self, buckets: Mapping[int, int]) -> None:
        """Add the counts of another histogram; its extremes are known as well as its buckets are wide."""
        for bucket, count in buckets.items():
            if count > 0:
                self._buckets[bucket] += count
                middle = _middle(bucket)
                self._min = min(self._min, middle)
                self._max = max(self._max, middle)
                self._total_s += middle * count

    def quantile(self, share: float) -> float:
        """The duration, in seconds, that this share (0 to 1) of all does not exceed; 0 when nothing was counted."""
        return self._quantiles((share,))[0]

    def summary_us(self) -> dict[str, float]:
        """`min`, `p50`, `p95`, `p99` and `max` in microseconds; empty when nothing was counted."""
        self.fold()
        if not self._buckets:
            return {}
        found = self._quantiles([share for _, share in _QUANTILES])
        quantiles = {name: each * 1e6 for (name, _), each in zip(_QUANTILES, found, strict=True)}
        return {"min": self._min * 1e6, **quantiles, "max": self._max * 1e6}

    def cumulative(self) -> dict[float, int]:
        """How many durations were at most as long as each of `LATENCY_BOUNDS_S`; empty when nothing was counted."""
        self.fold()
        each = [0] * len(LATENCY_BOUNDS_S)
        for bucket, count in self._buckets.items():
            each[bisect_left(_BOUND_BUCKETS, bucket)] += count
        return _summed(each)

    def _quantiles(self, shares: Sequence[float]) -> list[float]:
        """For shares in ascending order, in one pass."""
        self.fold()
        total = self._buckets.total()
        found: list[float] = []
        seen = 0
        for bucket, count in sorted(self._buckets.items()):
            seen += count
            while len(found) < len(shares) and seen >= shares[len(found)] * total:
                found.append(min(self._max, max(self._min, _middle(bucket))))
        return found + [self._max] * (len(shares) - len(found))


def cumulative(counts: Iterable[tuple[float, int]]) -> dict[float, int]:
    """How many durations were at most as long as each of `LATENCY_BOUNDS_S`, of durations in seconds and how many had each."""
    each = [0] * len(LATENCY_BOUNDS_S)
    for seconds, count in counts:
        each[bisect_left(LATENCY_BOUNDS_S, seconds)] += count
    return _summed(each)


def _summed(each: list[int]) -> dict[float, int]:
    sums = list(accumulate(each))
    return dict(zip(LATENCY_BOUNDS_S, sums, strict=True)) if sums[-1] else {}


def _middle(bucket: int) -> float:
    """The single whose upper half is `bucket`, and its lower half the middle of what that can be."""
    bits = (bucket << 16) | 0x8000
    return memoryview(bits.to_bytes(4, sys.byteorder)).cast("f")[0]


def _last_bucket_up_to(bound: float) -> int:
    bucket: int = memoryview(array("f", (bound,))).cast("B").cast("H")[_UPPER_HALF][0]
    return bucket if _middle(bucket) <= bound else bucket - 1


_BOUND_BUCKETS = [*map(_last_bucket_up_to, LATENCY_BOUNDS_S[:-1]), 1 << 16]


class RateMeter:
    """Events a second over the last ten seconds, from a running total that is marked now and then."""

    __slots__ = ("_marks", "next_mark")

    # Marks lie at least this far apart, so that their number is bounded.
    _STEP_S = 0.1

    def __init__(self, now: float) -> None:
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])
        # Before this moment a mark adds nothing.
        self.next_mark = now

    def mark(self, now: float, total: int) -> None:
        """At `now` (seconds of a clock that never goes back) so many events had happened in all."""
        if now < self.next_mark:
            return
        marks = self._marks
        marks.append((now, total))
        self.next_mark = now + self._STEP_S
        while len(marks) > 2 and marks[1][0] <= now - RATE_WINDOW_S:
            marks.popleft()

    def per_second(self, now: float, total: int) -> float:
        """Events a second since the window began, or since the start where that is later."""
        since = now - RATE_WINDOW_S
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= since:
            marks.popleft()
        began, before = marks[0]
        # Nothing is known of the inside of a gap before the window: whatever fell into it is left out.
        elapsed = min(RATE_WINDOW_S, now - began)
        return (total - before) / elapsed if elapsed > 0 else 0.0
