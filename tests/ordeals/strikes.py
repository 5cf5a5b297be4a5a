"""The kills of an ordeal: at which step of its work, or at which moment, a process dies."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from infrastructure.stubs.crash_points import CRASH_POINTS, CrashAt
from tests.ordeals.house import Kind

# How often such a step can be counted on to be passed while one process lives.
_PASSAGES = {"claim": 1, "renew": 1, "release": 1, "checkpoint": 1, "cancel": 2, "log": 2, "halt": 4}


@dataclass(frozen=True, slots=True)
class Strike:
    """One SIGKILL: at a named point, or without one at a random instant."""

    at: CrashAt | None = None


def strikes_for(kind: Kind, *, random_kills: int, kills_per_point: int, seed: int) -> list[Strike]:
    """This kind's share, in a random order, of as many kills over all kinds."""
    kinds = list(Kind)
    place = kinds.index(kind)
    random = Random(f"{seed}:{kind}")
    found = [Strike() for number in range(random_kills) if number % len(kinds) == place]
    for number, point in enumerate(CRASH_POINTS):
        for again in range(kills_per_point):
            if (number + again) % len(kinds) == place:
                most = _PASSAGES.get(point.partition(".")[0], 3)
                found.append(Strike(CrashAt(point, random.randint(1, most))))
    random.shuffle(found)
    return found
