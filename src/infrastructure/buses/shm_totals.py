"""What a shared-memory bus has counted: totals, the rate of the last seconds, latencies in logarithmic buckets, all in shared words."""

from __future__ import annotations

from infrastructure.buses.bus_limits import RATE_WINDOW_S
from infrastructure.buses.shm_layout import Head
from infrastructure.buses.shm_segment import Segment

__all__ = ["Totals"]

_SECOND = 1_000_000_000
# Sixteen buckets to an octave: a latency is told within 3.2 %.
_BITS = 5
_OCTAVE = 1 << (_BITS - 1)
_QUANTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))


class Totals:
    """Counts of all objects of a bus since it was created. All calls are made inside a section of the segment.

    Times are in nanoseconds. The counts are part of the section: what is undone was not counted.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self.add = segment.add

    def sent(self, count: int, now: int) -> None:
        """So many were put into an inbox."""
        self.add(Head.SENT, count)
        words = self._segment.words
        second = now // _SECOND
        pair = Head.RATE + 2 * (second % Head.RATE_PAIRS)
        if words[pair] == second:
            self.add(pair + 1, count)
        else:
            self._segment.set(pair, second)
            self._segment.set(pair + 1, count)

    def delivered(self, count: int, attempt: int, latency: int) -> None:
        """So many were taken out of one, together; only the first delivery of a message counts as such."""
        if attempt > 1:
            self.add(Head.REDELIVERED, count)
            return
        self.add(Head.DELIVERED, count)
        latency = max(0, latency)
        words = self._segment.words
        shift = max(0, latency.bit_length() - _BITS)
        self.add(Head.LATENCY + min(shift * _OCTAVE + (latency >> shift), Head.LATENCY_BUCKETS - 1), count)
        # The shortest is kept one higher, since 0 says that there is none yet.
        if not words[Head.SHORTEST] or latency + 1 < words[Head.SHORTEST]:
            self._segment.set(Head.SHORTEST, latency + 1)
        if latency > words[Head.LONGEST]:
            self._segment.set(Head.LONGEST, latency)

    def per_second(self, now: int) -> float:
        """Messages sent a second over the last ten seconds, or since the bus was created where that is later."""
        words = self._segment.words
        second = now // _SECOND
        total = 0
        for pair in range(Head.RATE, Head.RATE + 2 * Head.RATE_PAIRS, 2):
            if 0 <= second - words[pair] < RATE_WINDOW_S:
                total += words[pair + 1]
        elapsed = min(RATE_WINDOW_S, (now - words[Head.CREATED]) / _SECOND)
        return total / elapsed if elapsed > 0 else 0.0

    def latency_us(self) -> dict[str, float]:
        """`min`, `p50`, `p95`, `p99` and `max` in microseconds; empty when nothing was delivered."""
        words = self._segment.words
        if not words[Head.SHORTEST]:
            return {}
        shortest, longest = words[Head.SHORTEST] - 1, words[Head.LONGEST]
        counts = words[Head.LATENCY : Head.LATENCY + Head.LATENCY_BUCKETS].tolist()
        total = sum(counts)
        quantiles = {}
        for name, share in _QUANTILES:
            wanted = share * total
            for bucket, count in enumerate(counts):
                wanted -= count
                if wanted <= 0 and count:
                    quantiles[name] = min(longest, max(shortest, _middle(bucket))) / 1e3
                    break
        return {"min": shortest / 1e3, **quantiles, "max": longest / 1e3}

    def latencies(self) -> list[tuple[float, int]]:
        """What lies in the middle of each bucket, in seconds, and how many messages fell into it, where any did."""
        counts = self._segment.words[Head.LATENCY : Head.LATENCY + Head.LATENCY_BUCKETS].tolist()
        return [(_middle(bucket) / _SECOND, count) for bucket, count in enumerate(counts) if count]


def _middle(bucket: int) -> float:
    shift = max(0, bucket // _OCTAVE - 1)
    return (bucket - shift * _OCTAVE + 0.5) * float(1 << shift)
