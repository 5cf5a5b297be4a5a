"""Places and the hand that passes them, held against the same rule written down plainly, one key at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrastructure.population.tiers.places import NOWHERE, Places

KEYS = 24


@dataclass
class Clock:
    """CLOCK with touches counted up to three, in the plainest way."""

    size: int
    key_at: list[int] = field(default_factory=list)
    touches: list[int] = field(default_factory=list)
    hand: int = 0

    def __post_init__(self) -> None:
        self.key_at, self.touches = [NOWHERE] * self.size, [0] * self.size

    def touch(self, place: int) -> None:
        self.touches[place] = min(3, self.touches[place] + 1)

    def admit(self, keys: Sequence[int], beside: Sequence[int]) -> tuple[list[int], list[int]]:
        held, places, left = set(beside), [], []
        for key in keys:
            while True:
                place, self.hand = self.hand, (self.hand + 1) % self.size
                if place in held:
                    continue
                if self.touches[place]:
                    self.touches[place] -= 1
                    continue
                break
            held.add(place)
            places.append(place)
            left.append(self.key_at[place])
            self.key_at[place] = key
        return places, left

    def leave(self, keys: Sequence[int]) -> None:
        for key in keys:
            place = self.key_at.index(key)
            self.key_at[place], self.touches[place] = NOWHERE, 0


def _array(numbers: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(list(numbers), np.int64)


turns = st.lists(
    st.one_of(
        st.tuples(st.just("visit"), st.lists(st.integers(0, KEYS - 1), max_size=8, unique=True)),
        st.tuples(st.just("one"), st.lists(st.integers(0, KEYS - 1), min_size=1, max_size=1)),
        st.tuples(st.just("leave"), st.lists(st.integers(0, KEYS - 1), max_size=4, unique=True)),
    ),
    max_size=30,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 12), turns)
def test_places_are_given_as_the_plain_rule_gives_them(size: int, found: list[tuple[str, list[int]]]) -> None:
    places, model = Places(KEYS, size), Clock(size)
    for what, keys in found:
        there = [key for key in keys if key in model.key_at]
        others = [key for key in keys if key not in model.key_at]
        if what == "leave":
            places.leave(_array(there))
            model.leave(there)
        elif what == "one" and others:
            expected, left = model.admit(others, [])
            assert places.admit_one(others[0]) == (expected[0], left[0])
        else:
            beside = [model.key_at.index(key) for key in there]
            for place in beside:
                model.touch(place)
            places.touch(np.array(beside, np.int32))
            if len(others) > size - len(beside):
                with pytest.raises(ValueError, match="may give way"):
                    places.admit(_array(others), beside=np.array(beside, np.int32))
            else:
                expected, left = model.admit(others, beside)
                got, gone = places.admit(_array(others), beside=np.array(beside, np.int32))
                assert (got.tolist(), gone.tolist()) == (expected, left)
        assert places.key_at.tolist() == model.key_at
        assert places.touches.tolist() == model.touches
        assert places.hand == model.hand
        where = {key: place for place, key in enumerate(model.key_at) if key != NOWHERE}
        assert places.place_of.tolist() == [where.get(key, NOWHERE) for key in range(KEYS)]


def test_whoever_is_asked_for_again_and_again_stays() -> None:
    places = Places(100, 4)
    places.admit(_array([0, 1, 2, 3]))
    for stranger in range(4, 100):
        places.touch(places.place_of[[0, 2]])
        places.admit_one(stranger)
    assert places.place_of[0] != NOWHERE
    assert places.place_of[2] != NOWHERE


def test_a_touch_too_many_spares_no_longer() -> None:
    once, often = Places(9, 2), Places(9, 2)
    for places, touches in ((once, 3), (often, 300)):
        places.admit(_array([0, 1]))
        for _ in range(touches):
            places.touch_one(0)
        for stranger in (2, 3, 4, 5):
            places.admit_one(stranger)
    assert once.key_at.tolist() == often.key_at.tolist()


def test_places_follow_those_of_another_under_other_names() -> None:
    other, places = Places(10, 4), Places(10, 4)
    other.admit(_array([1, 2, 3]))
    other.touch_one(1)
    other.admit_one(7)
    places.follow(other, lambda keys: 9 - keys)
    assert places.key_at.tolist() == [9 - key for key in other.key_at.tolist()]
    assert places.touches.tolist() == other.touches.tolist()
    assert places.hand == other.hand
    for key in (3, 4):
        assert other.admit_one(key + 1)[0] == places.admit_one(9 - key - 1)[0]
