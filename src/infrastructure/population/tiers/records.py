"""What an agent keeps in its state when states lie in tiers, and the checksum that says whether it is still that."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.randomness import GOLDEN, draw

__all__ = ["HEAD", "Words", "digest_of", "digests_of", "noted"]

Words: TypeAlias = NDArray[np.int64]
"""States as little-endian words of 64 bits, shape (agents, state bytes / 8)."""

AGENT, WRITES, VISITS, TICK, OPINION, SUM = range(6)
HEAD = 6
"""Words before the history: the agent's id, how often the state was written, how often it was visited, the tick and the opinion
of the last visit, and the sum of the opinions at all its writings; opinions are in units of 1 / GRID."""


def noted(words: Words, *, ids: NDArray[np.uint64], visits: NDArray[np.int64], opinions: Words, tick: int) -> Words:
    """The states after a visit in `tick`: counts, the last opinion, and a history of as many opinions as there is room for.

    A state that belonged to another agent of the same row begins anew, but for the count of its writings.
    """
    found = words.copy()
    strangers = np.flatnonzero(found[:, AGENT] != ids.astype(np.int64))
    writes = found[:, WRITES].copy()
    found[strangers] = 0
    found[:, AGENT] = ids.astype(np.int64)
    found[:, WRITES] = writes + 1
    found[:, VISITS] += visits
    found[:, TICK] = tick
    found[:, OPINION] = opinions
    found[:, SUM] += opinions
    room = words.shape[1] - HEAD
    found[np.arange(len(found)), HEAD + writes % room] = opinions
    return found


def digests_of(words: Words) -> NDArray[np.uint64]:
    """A checksum of each state: the sum of its words, each times an odd number of its place, so that none can change unseen."""
    found: NDArray[np.uint64] = words.view(np.uint64) @ _factors(words.shape[1])
    return found


def digest_of(state: bytes) -> int:
    """The same of one state."""
    words = np.frombuffer(state, np.uint64)
    return int(words @ _factors(words.size))


@lru_cache(maxsize=4)
def _factors(words: int) -> NDArray[np.uint64]:
    """Odd, so that multiplying by them loses nothing."""
    return draw(GOLDEN, np.arange(words, dtype=np.uint64)) | np.uint64(1)
