"""Which keys have one of a few places, and which of them gives way: CLOCK (Corbató, 1968) that counts touches (Smith, 1978)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOWHERE", "Places"]

NOWHERE = -1
_LOOK = 64
_MOST_TOUCHES = 3


class Places:
    """So many `places` for `keys` keys, numbered from 0. The hand spares a place as often as it was touched, three times at most.

    What happens to many keys in one call is what happens to them one after the other, but that none of them makes another give way.
    """

    def __init__(self, keys: int, places: int) -> None:
        self.place_of: NDArray[np.int32] = np.full(keys, NOWHERE, np.int32)
        self.key_at: NDArray[np.int32] = np.full(places, NOWHERE, np.int32)
        self.touches: NDArray[np.uint8] = np.zeros(places, np.uint8)
        self.hand = 0
        # One element of these costs a fraction of one of an array.
        self.place_view = self.place_of.data
        self._touches_view = self.touches.data
        self._key_view = self.key_at.data
        self._held: NDArray[np.bool_] = np.zeros(places, np.bool_)

    @property
    def size(self) -> int:
        """How many places there are."""
        return self.key_at.size

    def touch(self, places: NDArray[np.int32]) -> None:
        """Remember that these, each named once, were asked for."""
        self.touches[places] = np.minimum(self.touches[places] + np.uint8(1), _MOST_TOUCHES)

    def touch_one(self, place: int) -> None:
        """The same for one."""
        if self._touches_view[place] < _MOST_TOUCHES:
            self._touches_view[place] += 1

    def admit(
        self, keys: NDArray[np.int64], *, beside: NDArray[np.int32] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The places that these keys have from now on, who had none and are each named once, and whose places they were (-1: nobody's).

        The places `beside` are passed over. Raises `ValueError` where there are too few others, and then nothing has changed.
        """
        held = self._held
        if beside is not None:
            held[beside] = True
        try:
            if keys.size > self.size - np.count_nonzero(held):
                raise ValueError(f"{keys.size} keys want places, and fewer than that may give way")
            places = self._given_way(keys.size)
        finally:
            held[:] = False
        left = self.key_at[places]
        self.place_of[left[left >= 0]] = NOWHERE
        self.key_at[places] = keys
        self.place_of[keys] = places
        return places, left

    def admit_one(self, key: int) -> tuple[int, int]:
        """The same for one key beside which nobody stays."""
        touches, place, size = self._touches_view, self.hand, self.size
        while touches[place]:
            touches[place] -= 1
            place = place + 1 if place + 1 < size else 0
        self.hand = place + 1 if place + 1 < size else 0
        left = self._key_view[place]
        if left >= 0:
            self.place_view[left] = NOWHERE
        self._key_view[place] = key
        self.place_view[key] = place
        return place, left

    def follow(self, other: Places, names: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> None:
        """Have these places taken, touched and passed by the hand as those of another are, whose keys have other `names` here."""
        taken = other.key_at >= 0
        keys = names(other.key_at[taken].astype(np.int64))
        self.key_at[:], self.place_of[:] = NOWHERE, NOWHERE
        self.key_at[taken] = keys
        self.place_of[keys] = np.flatnonzero(taken)
        self.touches[:] = other.touches
        self.hand = other.hand

    def leave_one(self, key: int) -> None:
        """Take the place of this key away, if it has one."""
        place = self.place_view[key]
        if place >= 0:
            self._key_view[place] = self.place_view[key] = NOWHERE
            self._touches_view[place] = 0

    def leave(self, keys: NDArray[np.int64] | NDArray[np.int32]) -> None:
        """Take the places of these keys away, who have one."""
        places = self.place_of[keys]
        self.key_at[places] = NOWHERE
        self.touches[places] = 0
        self.place_of[keys] = NOWHERE

    def _given_way(self, count: int) -> NDArray[np.int32]:
        """The next places that the hand comes to which neither are held nor spared."""
        found: list[NDArray[np.int64]] = []
        look = _LOOK
        while count:
            end = min(self.size, self.hand + look + 4 * count)
            held, touches = self._held[self.hand : end], self.touches[self.hand : end]
            free = np.flatnonzero(~held & (touches == 0))[:count]
            passed = int(free[-1]) + 1 if free.size == count else end - self.hand
            # Who is held is not looked at, and so not spared less the next time.
            touches[:passed] -= (~held[:passed] & (touches[:passed] > 0)).astype(np.uint8)
            found.append(free + self.hand)
            held[free] = True
            count -= free.size
            self.hand = (self.hand + passed) % self.size
            look *= 4
        return np.concatenate(found or [np.zeros(0, np.int64)]).astype(np.int32)
