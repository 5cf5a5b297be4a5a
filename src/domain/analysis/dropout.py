"""Drop-out: whether those who failed to answer are a fair sample, or one model or persona group is missing more than chance allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb

__all__ = ["LEVEL", "DropOut", "dropping_out", "fisher_tail"]

LEVEL = 0.05
"""A warning is raised below this probability, over all groups of a kind together (Holm, 1979)."""


@dataclass(frozen=True, slots=True)
class DropOut:
    """A group of which more is missing than of the others. `p_value` is Fisher's exact one, corrected for the groups compared."""

    kind: str
    group: str
    missing: int
    asked: int
    missing_elsewhere: int
    asked_elsewhere: int
    p_value: float


def fisher_tail(missing: int, asked: int, missing_elsewhere: int, asked_elsewhere: int) -> float:
    """The probability of at least so many missing in the group if who is missing were drawn without looking (Fisher, 1935): exact."""
    everyone, gone = asked + asked_elsewhere, missing + missing_elsewhere
    most = min(asked, gone)
    ways = sum(comb(asked, count) * comb(asked_elsewhere, gone - count) for count in range(missing, most + 1))
    return ways / comb(everyone, gone)


def dropping_out(kind: str, groups: Mapping[str, Sequence[bool]]) -> tuple[DropOut, ...]:
    """The groups with significantly more missing than all others together, the least likely first.

    `groups` say for each agent asked whether it is missing. Groups of one agent are compared with nobody: one agent that is
    missing says nothing about its kind.
    """
    asked = sum(len(members) for members in groups.values())
    gone = sum(sum(members) for members in groups.values())
    tested = []
    for name, members in groups.items():
        if len(members) > 1 and len(members) < asked:
            missing = sum(members)
            tail = fisher_tail(missing, len(members), gone - missing, asked - len(members))
            tested.append((tail, name, missing, len(members)))
    found: list[DropOut] = []
    reached = 0.0
    for place, (tail, name, missing, size) in enumerate(sorted(tested)):
        reached = min(max(reached, tail * (len(tested) - place)), 1.0)
        if reached >= LEVEL:
            break
        found.append(DropOut(kind, name, missing, size, gone - missing, asked - size, reached))
    return tuple(found)
