"""The ways to halt a Conclave while it is at work."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from random import Random

from tests.ordeals.house import Kind


class By(StrEnum):
    """How a halt is set: the first two through Conclave, which tells every channel, the others at one channel alone."""

    REST = "rest"
    COMMAND = "command"
    FILE = "file"
    DATABASE = "database"
    REDIS = "redis"


class Restart(StrEnum):
    """What happens to the processes while they are halted."""

    NONE = "none"
    TERMINATED = "terminated"
    KILLED = "killed"


@dataclass(frozen=True, slots=True)
class Drill:
    """One halt: how it is set, which channel is away meanwhile, and whether processes are started anew before it is cleared."""

    by: By
    broken: str | None = None
    restart: Restart = Restart.NONE


def drills_for(kind: Kind, *, number: int, seed: int) -> list[Drill]:
    """This kind's share of that many drills over all kinds. Each way comes before one comes again."""
    random = Random(seed)
    ways = [(by, broken) for by, broken in product(By, (None, "file", "redis", "database")) if by != broken]
    random.shuffle(ways)
    restarts = list(Restart)
    found: dict[Kind, list[Drill]] = {each: [] for each in Kind}
    for count in range(number):
        by, broken = ways[count % len(ways)]
        # A file that is moved away under SQLite is not a database that is away: whoever has it open goes on with it.
        able = [each for each in Kind if broken != "database" or each is not Kind.SQLITE]
        least = min(able, key=lambda each: (len(found[each]), random.random()))
        found[least].append(Drill(by, broken, restarts[(count + count // len(ways)) % len(restarts)]))
    return found[kind]
