"""Finds the notes that are most like a vector by comparing it with all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FoundNote, Table

__all__ = ["ExactNotes"]

_FIRST_ROOM = 256


class ExactNotes:
    """See `NoteIndex`. Misses nothing."""

    name = "exact"

    def __init__(self, dimensions: int) -> None:
        self._vectors = np.zeros((_FIRST_ROOM, dimensions), np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vectors: Table) -> int:
        """See `NoteIndex`."""
        new: NDArray[np.float32] = np.asarray(vectors)
        first, end = self._count, self._count + len(new)
        if end > len(self._vectors):
            grown = np.zeros((max(end, 2 * len(self._vectors)), self._vectors.shape[1]), np.float32)
            grown[:first] = self._vectors[:first]
            self._vectors = grown
        self._vectors[first:end] = new
        self._count = end
        return first

    def nearest(self, vector: Table, count: int, *, among: Sequence[int] | None = None) -> Sequence[FoundNote]:
        """See `NoteIndex`."""
        numbers = np.arange(self._count) if among is None else np.asarray(among, np.int64)
        wanted: NDArray[np.float32] = np.asarray(vector).reshape(-1)
        # Summed by numpy and not by the library for matrices, whose order of additions differs from machine to machine.
        likeness = (self._vectors[numbers] * wanted).sum(axis=1)
        order = np.lexsort((numbers, -likeness))[:count]
        return [FoundNote(int(numbers[place]), float(likeness[place])) for place in order]
