"""Spread: how divided the answers are, as entropy and as polarisation."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["entropy_bits", "polarisation_of_counts", "polarisation_of_estimates"]


def entropy_bits(counts: Sequence[int]) -> float | None:
    """Shannon's entropy of the answers in bits: 0 when all are the same, log2(k) when k are held equally; None without answers."""
    total = sum(counts)
    if not total:
        return None
    return abs(math.fsum(count / total * math.log2(total / count) for count in counts if count))


def polarisation_of_counts(counts: Sequence[int]) -> float | None:
    """4 * sum of s^2 (1 - s) over the shares (Reynal-Querol, 2002): 0 for one camp, 1 for two equal ones; None without answers."""
    total = sum(counts)
    if not total:
        return None
    return 4 * math.fsum((count / total) ** 2 * (1 - count / total) for count in counts)


def polarisation_of_estimates(numbers: Sequence[float], low: float, high: float) -> float | None:
    """The variance over the greatest that the range allows: 0 when all agree, 1 with half at either end; None without answers."""
    if not numbers or not high > low:
        return None
    scaled = [(number / 2 - low / 2) / (high / 2 - low / 2) for number in numbers]
    mean = math.fsum(scaled) / len(scaled)
    return 4 * math.fsum((number - mean) ** 2 for number in scaled) / len(scaled)
