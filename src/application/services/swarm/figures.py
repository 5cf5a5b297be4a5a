"""The figures of a swarm: its latencies in short, and whether heads and tails split as chance would have it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

__all__ = ["latency_histogram", "latency_summary", "split_p_value"]

_LATENCIES = ("min", "p50", "p95", "p99", "max", "mean", "std_dev")
# Histogram bounds: 1, 2 and 5 times the powers of ten, in microseconds, up to an hour.
_BOUNDS = tuple(step * 10**power for power in range(10) for step in (1, 2, 5))


def latency_summary(seconds: Sequence[float]) -> dict[str, float]:
    """`min`, `p50`, `p95`, `p99`, `max`, `mean`, `std_dev` (of the population) in microseconds; all 0 where there are none.

    Percentiles are nearest ranks: the least value that at least so many percent do not exceed.
    """
    if not seconds:
        return dict.fromkeys(_LATENCIES, 0.0)
    ordered = sorted(seconds)
    mean = math.fsum(ordered) / len(ordered)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    ranked = {name: ordered[math.ceil(len(ordered) * share) - 1] for name, share in _RANKS.items()}
    found = {"min": ordered[0], **ranked, "max": ordered[-1], "mean": mean, "std_dev": spread}
    return {name: round(value * 1e6, 1) for name, value in found.items()}


_RANKS: Mapping[str, float] = {"p50": 0.50, "p95": 0.95, "p99": 0.99}


def latency_histogram(seconds: Sequence[float]) -> list[dict[str, int]]:
    """How many latencies are at most `up_to_us` microseconds and above the bound before, without empty ranges at both ends."""
    counts = [0] * len(_BOUNDS)
    for value in seconds:
        counts[min(_range_of(value * 1e6), len(_BOUNDS) - 1)] += 1
    filled = [place for place, count in enumerate(counts) if count]
    if not filled:
        return []
    return [{"up_to_us": _BOUNDS[place], "count": counts[place]} for place in range(filled[0], filled[-1] + 1)]


def _range_of(microseconds: float) -> int:
    low, high = 0, len(_BOUNDS) - 1
    while low < high:
        middle = (low + high) // 2
        if microseconds <= _BOUNDS[middle]:
            high = middle
        else:
            low = middle + 1
    return low


def split_p_value(heads: int, tails: int) -> float:
    """How likely a fair coin splits at least as unevenly as this: the exact two-sided binomial test, in whole numbers.

    The distribution for a fair coin is symmetric, so both tails weigh the same. No flips prove nothing: 1.
    """
    flips, fewer = heads + tails, min(heads, tails)
    if 2 * fewer == flips:
        return 1.0
    ways = total = 1
    for successes in range(fewer):
        ways = ways * (flips - successes) // (successes + 1)
        total += ways
    every_way: int = 2**flips
    return 2 * total / every_way
