"""Remembers the pulls of features within a fixed room: eight signed bytes of features are their own key of 64 bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import NO_PULL
from infrastructure.population.randomness import GOLDEN

__all__ = ["CACHE_BITS", "AnswerCache", "keys_of"]

CACHE_BITS = 17


def keys_of(features: NDArray[np.int8]) -> NDArray[np.uint64]:
    """One word for each row of features, another for each other row."""
    return np.ascontiguousarray(features).view(np.uint64).reshape(-1)


class AnswerCache:
    """2^bits places, each for one of the keys whose hash leads there: the last one put in. Never answers for another key."""

    def __init__(self, bits: int = CACHE_BITS) -> None:
        self._shift = np.uint64(64 - bits)
        self._keys = np.zeros(1 << bits, np.uint64)
        self._pulls = np.full(1 << bits, NO_PULL, np.int16)
        # Which of the keys at hand stands for those that lead to a place.
        self._stands = np.zeros(1 << bits, np.int32)
        # Which of them nobody has asked for yet.
        self._unasked = np.zeros(1 << bits, np.bool_)

    @property
    def size_bytes(self) -> int:
        """The memory that it takes."""
        return self._keys.nbytes + self._pulls.nbytes + self._stands.nbytes + self._unasked.nbytes

    def find(self, keys: NDArray[np.uint64], *, wanted: bool) -> tuple[NDArray[np.int16], NDArray[np.bool_], int]:
        """The pulls of these keys, which of them are known, and how many nobody had asked for before.

        Only where they are `wanted` do they count as asked for.
        """
        places = self._places(keys)
        pulls = self._pulls.take(places)
        known = (self._keys.take(places) == keys) & (pulls != NO_PULL)
        foreseen = 0
        if wanted:
            first = np.unique(places[known & self._unasked.take(places)])
            foreseen = int(first.size)
            self._unasked[first] = False
        return pulls, known, foreseen

    def put(self, keys: NDArray[np.uint64], pulls: NDArray[np.int16], *, wanted: bool) -> None:
        """Remember these pulls; NO_PULL is nothing to remember."""
        places = self._places(keys)
        # Of two keys that lead to one place the last stays, in all three columns.
        self._keys[places] = keys
        self._pulls[places] = pulls
        self._unasked[places] = not wanted

    def distinct(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of these keys stand for all of them, each once, and for each key the number of the one that stands for it."""
        places = self._places(keys)
        numbers = np.arange(keys.size)
        # By the places of the cache instead of by sorting, but for the few keys that lead to the place of another.
        self._stands[places] = numbers
        stands = self._stands.take(places).astype(np.int64)
        astray = np.flatnonzero(keys.take(stands) != keys)
        if astray.size:
            _, firsts, which = np.unique(keys[astray], return_index=True, return_inverse=True)
            stands[astray] = astray[firsts[which]]
        standing = np.flatnonzero(stands == numbers)
        numbers[standing] = np.arange(standing.size)
        return standing, numbers.take(stands)

    def _places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return ((keys * np.uint64(GOLDEN)) >> self._shift).view(np.int64)
