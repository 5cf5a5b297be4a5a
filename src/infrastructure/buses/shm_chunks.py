"""Chunks of shared memory that several places refer to: packed runs and names, gone when the last reference is."""

from __future__ import annotations

from infrastructure.buses.shm_segment import Segment

__all__ = ["Chunks"]

_BEFORE = 3


class Chunks:
    """Bytes with a count of references; a chunk is born with one, and all calls are made inside a section of the segment."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def store(self, first: bytes, second: bytes = b"") -> int:
        """Put two byte strings away together."""
        segment = self._segment
        split, size = len(first), len(first) + len(second)
        place = segment.allocate(_BEFORE + (size + 7) // 8)
        segment.words[place + 1] = size
        segment.words[place + 2] = split
        start = (place + _BEFORE) * 8
        segment.memory[start : start + split] = first
        segment.memory[start + split : start + size] = second
        return place

    def fetch(self, place: int) -> tuple[bytes, bytes]:
        """A copy of both."""
        segment = self._segment
        start = (place + _BEFORE) * 8
        split = start + segment.words[place + 2]
        return segment.memory[start:split], segment.memory[split : start + segment.words[place + 1]]

    def hold(self, place: int) -> None:
        """One more reference."""
        self._segment.add(place)

    def release(self, place: int) -> None:
        """One reference less."""
        segment = self._segment
        if segment.words[place] > 1:
            segment.add(place, -1)
        else:
            segment.free(place, _BEFORE + (segment.words[place + 1] + 7) // 8)
