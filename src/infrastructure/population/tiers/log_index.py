"""Where in a log of records the newest version of each state stands, and which records nobody needs any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["POSITIONS", "LogIndex"]

Numbers = NDArray[np.int64]

POSITIONS = 64
"""A place is a record's number times this, and the position of a state in it."""

_BYTE = 0xFF


class LogIndex:
    """Counts for each record how many of its states are still needed: by the present, or by a tick that one may go back to.

    A version is needed by the ticks from its own up to the one before that of the next version. `dead` records hold nothing that is
    needed, `movable` ones half of what they held at most, all of it the newest there is and no younger than every kept tick.
    """

    def __init__(self, keys: int) -> None:
        self.place_of: Numbers = np.full(keys, -1, np.int64)
        self.versions: NDArray[np.uint32] = np.zeros(keys, np.uint32)
        self.dead: deque[int] = deque()
        self.movable: deque[int] = deque()
        self._sparse: deque[int] = deque()
        # By number: the tick, half of the states that it held, and how many are needed, in one number.
        self._records: dict[int, int] = {}
        # What is needed by kept ticks alone: in which tick it was outlived, and its record.
        self._outlived: deque[tuple[int, Numbers]] = deque()
        self._oldest = self._newest = 0

    def __contains__(self, number: int) -> bool:
        return number in self._records

    def tick_of(self, number: int) -> int:
        """The tick of that record."""
        return self._records[number] >> 16

    def needed_of(self, number: int) -> int:
        """How many states of that record are needed."""
        return self._records[number] & _BYTE

    def add(self, keys: Numbers, versions: Numbers, places: Numbers, *, tick: int) -> None:
        """These states were written in `tick`, each over the one before it."""
        before = self.place_of[keys]
        self._enter(places, tick)
        self.place_of[keys] = places
        self.versions[keys] = versions
        self._outlive(before[before >= 0] // POSITIONS, tick)

    def move(self, keys: Numbers, places: Numbers, gone: Sequence[int], *, tick: int) -> None:
        """These states, of `tick` or before, stand at other places now, and the records that are `gone` are no more."""
        self._enter(places, tick)
        self.place_of[keys] = places
        self.bury(gone)

    def bury(self, gone: Sequence[int]) -> None:
        """These records are no more."""
        for number in gone:
            del self._records[number]

    def keep(self, ticks: Sequence[int]) -> None:
        """See `DurableStateStore.keep`."""
        self._oldest, self._newest = min(ticks, default=0), max(ticks, default=0)
        while self._outlived and self._outlived[0][0] <= self._oldest:
            for number in self._outlived.popleft()[1].tolist():
                self._lose(number)
        found, self._sparse = self._sparse, deque()
        for number in found:
            if number in self._records and self.needed_of(number):
                (self.movable if self.tick_of(number) <= self._oldest else self._sparse).append(number)

    def later(self, number: int) -> None:
        """A kept tick needs some of that record; it may be moved another time."""
        self._sparse.append(number)

    def rebuild(self, keys: Numbers, versions: Numbers, places: Numbers, ticks: Numbers) -> None:
        """Begin with all states that stand in the log, in any order; every tick is kept until it is said which."""
        order = np.lexsort((versions, keys))
        keys, versions, places, ticks = keys[order], versions[order], places[order], ticks[order]
        numbers = places // POSITIONS
        for number, first, count in zip(*(found.tolist() for found in _grouped(numbers)), strict=True):
            self._records[number] = int(ticks[first]) << 16 | count // 2 << 8 | count
        last = np.append(keys[1:] != keys[:-1], True) if keys.size else np.zeros(0, np.bool_)
        self.place_of[keys[last]] = places[last]
        self.versions[keys[last]] = versions[last]
        older = np.flatnonzero(~last)
        until = ticks[older + 1] if older.size else older
        for tick in np.unique(until).tolist():
            self._outlived.append((tick, numbers[older[until == tick]]))

    def _enter(self, places: Numbers, tick: int) -> None:
        numbers, _, counts = _grouped(places // POSITIONS)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._records[number] = tick << 16 | count // 2 << 8 | count

    def _outlive(self, numbers: Numbers, tick: int) -> None:
        kept = []
        for number in numbers.tolist():
            # What came after the last kept tick and is outlived before the next one is needed by none.
            if self.tick_of(number) > self._newest:
                self._lose(number)
            else:
                kept.append(number)
        if kept:
            self._outlived.append((tick, np.array(kept, np.int64)))

    def _lose(self, number: int) -> None:
        self._records[number] -= 1
        found = self._records[number]
        needed = found & _BYTE
        if not needed:
            self.dead.append(number)
        elif needed == found >> 8 & _BYTE:
            self._sparse.append(number)


def _grouped(numbers: Numbers) -> tuple[Numbers, NDArray[np.intp], NDArray[np.intp]]:
    """Each number once, where it stands first, and how often it does."""
    return np.unique(numbers, return_index=True, return_counts=True)
