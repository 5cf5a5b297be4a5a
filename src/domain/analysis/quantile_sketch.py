"""Quantiles of as many numbers as there are, from counts by size, to within a tenth of a percent."""

from __future__ import annotations

import math

__all__ = ["QuantileSketch"]

_WIDTH = math.log(1.002)
# What lies beyond counts as the least or the greatest, so that there are never more than some thousand bins in use.
_LEAST = 1e-12
_GREATEST = 1e18


class QuantileSketch:
    """Counts numbers from 0 on in bins whose bounds grow by 0.2 % (as in Masson, Rim and Lee, DDSketch, 2019): memory stays bounded."""

    __slots__ = ("_bins", "_zeros", "count", "greatest", "least", "total")

    def __init__(self) -> None:
        self._bins: dict[int, int] = {}
        self._zeros = 0
        self.count = 0
        self.total = 0.0
        self.least = math.inf
        self.greatest = -math.inf

    def add(self, value: float) -> None:
        """One number. Those below 0 count as the least there can be."""
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.greatest = max(self.greatest, value)
        if value <= _LEAST:
            self._zeros += 1
            return
        place = math.floor(math.log(min(value, _GREATEST)) / _WIDTH)
        self._bins[place] = self._bins.get(place, 0) + 1

    @property
    def mean(self) -> float | None:
        """None without any number."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """The number below which that share of all lie, by the nearest rank; None without any number."""
        if not self.count:
            return None
        rank = max(1, math.ceil(share * self.count))
        if rank >= self.count:
            return self.greatest
        reached = self._zeros
        if reached >= rank:
            return min(0.0, self.least)
        for place in sorted(self._bins):
            reached += self._bins[place]
            if reached >= rank:
                middle = math.exp((place + 0.5) * _WIDTH)
                return min(max(middle, self.least), self.greatest)
        return self.greatest
