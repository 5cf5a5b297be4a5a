"""The tree that coordinates a population: how many nodes each level has, what it costs in messages, and the commands that go down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from domain.models.run import JsonValue

__all__ = ["FAN_IN", "KNOWN_CLAIM", "Command", "TreeShape"]

FAN_IN = 100
"""As many children a node of the tree has at most."""

KNOWN_CLAIM = 101.53
"""The factor that is claimed elsewhere for coordination by a tree, without saying of what."""

_COMMAND = re.compile(r"(?P<tick>\d{1,8}):(?P<what>[a-z]+)(?:=(?P<value>[^:]{1,32}))?(?::(?P<regions>[\d,-]{1,400}))?")
_SETTINGS = ("bound", "susceptibility", "activity")
_STATES = ("pause", "wake")


@dataclass(frozen=True, slots=True)
class TreeShape:
    """Nodes of each level, the root first and the agents last; between them regions and localities, and provinces above ten thousand
    localities, so that no node has more than `FAN_IN` children.
    """

    levels: tuple[int, ...]

    @classmethod
    def of(cls, agents: int) -> TreeShape:
        """That of a population with so many rows."""
        localities = -(-agents // FAN_IN)
        levels = [agents, localities, -(-localities // FAN_IN)]
        while levels[-1] > FAN_IN:
            levels.append(-(-levels[-1] // FAN_IN))
        return cls((1, *reversed(levels)))

    @property
    def agents(self) -> int:
        """How many leaves there are."""
        return self.levels[-1]

    @property
    def regions(self) -> int:
        """How many nodes have localities for children."""
        return self.levels[-3]

    @property
    def fan_in(self) -> int:
        """The most children that any node has."""
        below = zip(self.levels, self.levels[1:], strict=False)
        return max(min(FAN_IN, children) if nodes > 1 else children for nodes, children in below)

    @property
    def links(self) -> int:
        """Messages of one fold, or of one command: each node but the root sends or takes one."""
        return sum(self.levels[1:])

    def document(self) -> dict[str, JsonValue]:
        """Its messages and its fan-in beside those of a star and of a full mesh, and the factor between the last and the first."""
        agents = self.agents
        rounds = {
            "tree": {"messages": 2 * self.links, "fan_in": self.fan_in, "hops": len(self.levels) - 1},
            "flat": {"messages": 2 * agents, "fan_in": agents, "hops": 1},
            "full_mesh": {"messages": agents * (agents - 1), "fan_in": max(0, agents - 1), "hops": 1},
        }
        alike = round(2 * KNOWN_CLAIM)
        return {
            "levels": list(self.levels),
            "fan_in_limit": FAN_IN,
            "a_round_up_and_down": {name: dict(one) for name, one in rounds.items()},
            "factor": {
                "own": agents * (agents - 1) / (2 * self.links),
                "definition": (
                    "messages of a full mesh, in which each agent tells every other (n (n - 1)), over those of the tree, which go up "
                    "and down each link once; counted, not timed"
                ),
                "busiest_node_against_flat": agents / self.fan_in if self.fan_in else 0.0,
                "known_claim": KNOWN_CLAIM,
                "known_claim_is": (
                    "of no stated definition; full mesh over a tree of n - 1 links, up and down, is n / 2, which is "
                    f"{KNOWN_CLAIM} at {alike} agents"
                ),
                "own_at_as_many_agents": alike * (alike - 1) / (2 * TreeShape.of(alike).links),
            },
        }


@dataclass(frozen=True, slots=True)
class Command:
    """What the root has every worker of some regions do before it takes tick `tick`: `TICK:WHAT[:REGIONS]`.

    `what` is `bound`, `susceptibility` or `activity` with the value to take (`50:bound=0.1`), `pause` or `wake`. Regions are numbers
    and ranges (`0,3-7`), else all.
    """

    tick: int
    what: str
    value: float | None
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parsed(cls, text: object, *, regions: int) -> Command:
        """What `text` says to a tree of so many regions. Raises `ValueError`, which says what is wrong."""
        found = _COMMAND.fullmatch(text) if isinstance(text, str) else None
        if found is None or found["what"] not in (*_SETTINGS, *_STATES):
            settings = ", ".join(f"{name}=X" for name in _SETTINGS)
            raise ValueError(f"must be TICK:WHAT or TICK:WHAT:REGIONS, WHAT one of {settings}, {', '.join(_STATES)}")
        if int(found["tick"]) < 1:
            raise ValueError("must name a tick from 1 on")
        value = None
        if found["what"] in _SETTINGS:
            value = _fraction(found["value"])
        elif found["value"] is not None:
            raise ValueError(f"must not give a value to {found['what']}")
        return cls(int(found["tick"]), found["what"], value, tuple(_spans(found["regions"], regions)))


def _fraction(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise ValueError("must give a value from 0 to 1")
    return value


def _spans(text: str | None, regions: int) -> Iterator[tuple[int, int]]:
    """First and last, counted up to but not including, of each part."""
    if text is None:
        yield 0, regions
        return
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ValueError("must name regions as numbers and ranges, as in 0,3-7")
        begin, end = int(first), int(last) if dash else int(first)
        if not begin <= end < regions:
            raise ValueError(f"must name regions from 0 to {regions - 1}, the lower one first")
        yield begin, end + 1
