"""Draws agents by Zipf's law with whole numbers alone, so that every machine draws the same ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.randomness import Pairing, Purpose, Words, draw, key_of, number_at, pairing_of

__all__ = ["EXPONENT", "Popularity"]

EXPONENT = 1.2
"""The k-th most popular agent is drawn as often as 1 / k^1.2 says."""

# A fifth root has so many bits behind the point: the fifth power of that of 10,000,000 just fits a word.
_ROOT_BITS = 8
_WEIGHT = np.uint64(1 << 50)


class Popularity:
    """Who is drawn how often: ranks by Zipf's law, and a permutation that says which row has which rank."""

    def __init__(self, *, agents: int, seed: int) -> None:
        self._seed = seed
        self._sums = _sums(agents)
        self._rows: Pairing = pairing_of(key_of(seed, 0, Purpose.POPULARITY), agents)

    def ranks(self, tick: int, count: int, *, part: int = 0) -> NDArray[np.int64]:
        """The ranks, 0 the most popular, of `count` draws in `tick`, in ascending order; another `part` gives others."""
        words = draw(key_of(self._seed, tick, Purpose.VISIT, part), np.arange(count, dtype=np.uint64))
        # Sorted first, since the table is far larger than the processor's cache.
        targets = np.sort(words % self._sums[-1])
        return np.searchsorted(self._sums, targets, side="right").astype(np.int64)

    def rows(self, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that have these ranks."""
        return number_at(self._rows, ranks.astype(np.uint64)).astype(np.int64)


def _sums(agents: int) -> Words:
    """Running sums of the weights 1 / (k * k^(1/5)) by rank; the root is exact in 1/256 and rounded down."""
    numbers = np.arange(1, agents + 1, dtype=np.uint64)
    wanted = numbers << np.uint64(5 * _ROOT_BITS)
    # Floating point gives the root but for the last bit, which is then set by whole numbers.
    roots = np.rint(np.power(numbers.astype(np.float64), 0.2) * (1 << _ROOT_BITS)).astype(np.uint64)
    roots -= (roots**5 > wanted).astype(np.uint64)
    roots += ((roots + np.uint64(1)) ** 5 <= wanted).astype(np.uint64)
    sums: Words = np.cumsum(_WEIGHT // (numbers * roots), dtype=np.uint64)
    return sums
