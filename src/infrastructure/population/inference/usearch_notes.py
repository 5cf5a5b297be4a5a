"""Finds the notes that are most like a vector with usearch: a graph of neighbours (HNSW; Malkov and Yashunin, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import FoundNote, Table
from infrastructure.population.inference.exact_notes import ExactNotes

__all__ = ["UsearchNotes"]

# Below so many candidates comparing all of them is faster, and misses nothing.
_WORTH_A_GRAPH = 1_024


class UsearchNotes:
    """See `NoteIndex`. May miss some of the nearest; where it is told among which to look, it compares all of those."""

    name = "usearch"

    def __init__(self, dimensions: int) -> None:
        """Raises `ImportError` where the extra is not installed."""
        index: Any = import_module("usearch.index")
        self._graph = index.Index(ndim=dimensions, metric="ip", dtype="f32")
        self._exact = ExactNotes(dimensions)

    def __len__(self) -> int:
        return len(self._exact)

    def add(self, vectors: Table) -> int:
        """See `NoteIndex`."""
        new: NDArray[np.float32] = np.asarray(vectors)
        first = self._exact.add(vectors)
        # One thread, so that the same notes make the same graph.
        self._graph.add(np.arange(first, first + len(new), dtype=np.uint64), new, threads=1)
        return first

    def nearest(self, vector: Table, count: int, *, among: Sequence[int] | None = None) -> Sequence[FoundNote]:
        """See `NoteIndex`."""
        if among is not None or len(self) < _WORTH_A_GRAPH:
            return self._exact.nearest(vector, count, among=among)
        wanted: NDArray[np.float32] = np.asarray(vector).reshape(-1)
        matches = self._graph.search(wanted, count, threads=1)
        found = [
            FoundNote(int(key), 1.0 - float(apart)) for key, apart in zip(matches.keys, matches.distances, strict=True)
        ]
        return sorted(found, key=lambda note: (-note.likeness, note.number))
