"""How often CLOCK finds in the hot tier what is asked for, told by places alone: no state is read or written."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.randomness import Purpose, draw, key_of
from infrastructure.population.tiers.places import Places
from infrastructure.population.tiers.popularity import Popularity

__all__ = ["rehearsed", "uniform_hit_rate", "zipf_hit_rate"]

_AT_ONCE = 4_096
# After so many draws for each place the hand has gone round once and a half, and the rate no longer changes.
_DRAWS_EACH = 30
_MOST_DRAWS = 4_000_000
_UNIFORM_DRAWS = 200_000
_UNIFORM_ROUNDS = 200
_UNIFORM = 1 << 31


def rehearsed(popularity: Popularity, *, agents: int, slots: tuple[int, int]) -> tuple[Places, Places]:
    """Which ranks are hot and which are warm after many draws, as if the population had been visited for long before."""
    hot, warm = (Places(agents, count) for count in slots)
    at_once = max(1, min(_AT_ONCE, *slots) // 8)
    for part in range(1, 1 + -(-min(_DRAWS_EACH * hot.size, _MOST_DRAWS) // at_once)):
        _visited(hot, warm, popularity.ranks(0, at_once, part=part))
    return hot, warm


def zipf_hit_rate(popularity: Popularity, *, agents: int, slots: int, draws: int) -> float:
    """The share of `draws` that are found in so many slots by Zipf's law, after a rehearsal of as many as `rehearsed` makes."""
    places = Places(agents, slots)
    at_once = max(1, min(_AT_ONCE, slots) // 8)
    before = -(-min(_DRAWS_EACH * slots, _MOST_DRAWS) // at_once)
    rounds = max(1, draws // at_once)
    hits = [_visited(places, None, popularity.ranks(0, at_once, part=part)) for part in range(1, 1 + before + rounds)]
    return sum(hits[before:]) / (rounds * at_once)


def uniform_hit_rate(*, agents: int, slots: int, seed: int) -> float:
    """The share of draws that are found in so many slots when everybody is drawn as often as anybody."""
    places = Places(agents, slots)
    # Who is there in the beginning does not matter, since nobody is more popular.
    places.admit(np.arange(slots, dtype=np.int64))
    # What is drawn together is found together, which would flatter a small tier.
    at_once = max(1, min(_AT_ONCE, slots // 8))
    rounds = min(_UNIFORM_ROUNDS, -(-_UNIFORM_DRAWS // at_once))
    numbers = np.arange(at_once, dtype=np.uint64)
    hits = 0
    for part in range(rounds):
        words = draw(key_of(seed, 0, Purpose.VISIT, _UNIFORM + part), numbers) >> np.uint64(32)
        hits += _visited(places, None, (words * np.uint64(agents) >> np.uint64(32)).astype(np.int64))
    return hits / (rounds * at_once)


def _visited(hot: Places, warm: Places | None, keys: NDArray[np.int64]) -> int:
    """Visit these keys; how many of the visits found them hot."""
    visited = np.unique(keys)
    places = hot.place_of[visited]
    found = places >= 0
    hot.touch(places[found])
    missing = visited[~found]
    if missing.size:
        if warm is not None:
            warm.leave(missing[warm.place_of[missing] >= 0])
        _, left = hot.admit(missing, beside=places[found])
        if warm is not None:
            warm.admit(left[left >= 0].astype(np.int64))
    return keys.size - missing.size
