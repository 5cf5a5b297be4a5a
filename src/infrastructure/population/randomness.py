"""Randomness that is counted, not drawn in turn: a hash of the seed, the tick, the purpose and the agent, the same in every kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FIRST",
    "GOLDEN",
    "SECOND",
    "STRIDE",
    "Pairing",
    "Purpose",
    "draw",
    "finish",
    "key_of",
    "mixed",
    "pairing_of",
    "pairs_in_order",
    "partners_of",
]

Words: TypeAlias = NDArray[np.uint64]

GOLDEN = 0x9E3779B97F4A7C15
# Between the messages that one agent sends in one tick.
STRIDE = 0xD1342543DE82EF95
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1
_ROUNDS = 6


@unique
class Purpose(IntEnum):
    """What a random number is for; each has numbers of its own."""

    OPINION = 1
    RECIPIENT = 2
    PAIRING = 3
    ACTIVITY = 4
    ADOPTION = 5
    CHOICE = 6
    GRAPH = 7
    PRIORITY = 8
    SHARD = 9
    OWN = 10
    NETWORK = 21
    LISTENING = 22
    ASKING = 23
    THINKING = 24
    ARRIVAL = 31
    DEPARTURE = 32
    VISIT = 41
    POPULARITY = 42


def mixed(word: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): a bijection of 64-bit words."""
    word = ((word ^ (word >> 30)) * FIRST) & _MASK
    word = ((word ^ (word >> 27)) * SECOND) & _MASK
    return word ^ (word >> 31)


def key_of(seed: int, tick: int, purpose: Purpose, part: int = 0) -> int:
    """What the numbers of one purpose in one tick are drawn with."""
    word = mixed((seed + GOLDEN) & _MASK)
    for number in (purpose, tick, part):
        word = mixed((word + (number + 1) * GOLDEN) & _MASK)
    return word


def draw(key: int, counters: Words) -> Words:
    """64 random bits for each counter."""
    words = counters * np.uint64(GOLDEN)
    words += np.uint64(key)
    finish(words)
    return words


def finish(words: Words) -> None:
    """Make random bits, in place, of counters that were multiplied by GOLDEN and added to a key."""
    shifted = words >> np.uint64(30)
    words ^= shifted
    words *= np.uint64(FIRST)
    np.right_shift(words, np.uint64(27), out=shifted)
    words ^= shifted
    words *= np.uint64(SECOND)
    np.right_shift(words, np.uint64(31), out=shifted)
    words ^= shifted


@dataclass(frozen=True, slots=True)
class Pairing:
    """A random permutation of 0 to `size` - 1, computed in place of kept: multiplications, additions and shifts on just enough bits,
    repeated while a number lies beyond the end (cycle walking; Black and Rogaway, 2002). Whoever stands beside each other are a pair.
    """

    size: int
    mask: int
    shift: int
    factors: Words
    inverses: Words
    terms: Words


def pairing_of(key: int, size: int) -> Pairing:
    """The permutation that `key` names."""
    bits = max(2, (size - 1).bit_length())
    mask = (1 << bits) - 1
    factors = [mixed(key + 2 * number * GOLDEN & _MASK) & mask | 1 for number in range(_ROUNDS)]
    terms = [mixed(key + (2 * number + 1) * GOLDEN & _MASK) & mask for number in range(_ROUNDS)]
    inverses = [pow(factor, -1, mask + 1) for factor in factors]
    return Pairing(
        size=size,
        mask=mask,
        shift=(bits + 1) // 2,
        factors=np.array(factors, np.uint64),
        inverses=np.array(inverses, np.uint64),
        terms=np.array(terms, np.uint64),
    )


Step: TypeAlias = Callable[[Pairing, Words], Words]


def place_of(pairing: Pairing, numbers: Words) -> Words:
    """Where each number stands in the permutation."""
    return _walked(pairing, numbers, _forth)


def number_at(pairing: Pairing, places: Words) -> Words:
    """Which number stands at each place."""
    return _walked(pairing, places, _back)


def partners_of(pairing: Pairing, numbers: Words) -> Words:
    """The other one of the pair; the one without a partner, where their count is odd, is its own."""
    places = place_of(pairing, numbers) ^ np.uint64(1)
    alone = places >= np.uint64(pairing.size)
    return number_at(pairing, np.where(alone, places ^ np.uint64(1), places))


def pairs_in_order(pairing: Pairing) -> Words:
    """All numbers in the order of the permutation."""
    return number_at(pairing, np.arange(pairing.size, dtype=np.uint64))


def _walked(pairing: Pairing, words: Words, step: Step) -> Words:
    found = step(pairing, words)
    beyond = np.flatnonzero(found >= np.uint64(pairing.size))
    while beyond.size:
        found[beyond] = step(pairing, found[beyond])
        beyond = beyond[found[beyond] >= np.uint64(pairing.size)]
    return found


def _forth(pairing: Pairing, words: Words) -> Words:
    mask, shift = np.uint64(pairing.mask), np.uint64(pairing.shift)
    for factor, term in zip(pairing.factors, pairing.terms, strict=True):
        words = (words * factor + term) & mask
        words ^= words >> shift
    return words


def _back(pairing: Pairing, words: Words) -> Words:
    mask, shift = np.uint64(pairing.mask), np.uint64(pairing.shift)
    for inverse, term in zip(pairing.inverses[::-1], pairing.terms[::-1], strict=True):
        # The shift is at least half of the bits, so that the same step undoes it.
        words = words ^ (words >> shift)
        words = ((words - term) * inverse) & mask
    return words
