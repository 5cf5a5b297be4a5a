"""Movement: who changed the answer after the blind round, and whether it was towards those who led it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from domain.models.outcome import Change

__all__ = ["Flow", "Movement", "movement_of", "movement_of_estimates"]


@dataclass(frozen=True, slots=True)
class Flow:
    """So many agents went from one answer to another."""

    before: str
    after: str
    count: int


@dataclass(frozen=True, slots=True)
class Movement:
    """How many changed, between what, and `conformity`: the share of changers that moved to the leader of the blind round.

    `changeable` are those who answered in the blind round and in the end. `conformity` counts changers that did not hold the
    blind leader's answer before; None without any, or where nobody led alone. For estimates the leader is the blind median, there
    are no flows, and whoever came nearer to it conformed.
    """

    changeable: int
    changed: int
    flows: tuple[Flow, ...]
    blind_leader: str | None
    conformity: float | None


def movement_of(changes: Sequence[Change], *, changeable: int, blind_tally: Mapping[str, float]) -> Movement:
    """The movement in these changes; flows are the largest first, of one size in the order of their names."""
    flows: dict[tuple[str, str], int] = {}
    for change in changes:
        flows[change.before, change.after] = flows.get((change.before, change.after), 0) + 1
    leader = _leader(blind_tally)
    free = [change for change in changes if change.before != leader]
    conformity = None
    if leader is not None and free:
        conformity = sum(change.after == leader for change in free) / len(free)
    ordered = sorted(flows.items(), key=lambda item: (-item[1], item[0]))
    return Movement(changeable, len(changes), tuple(Flow(*pair, count) for pair, count in ordered), leader, conformity)


def movement_of_estimates(moves: Sequence[tuple[float, float]]) -> Movement:
    """The movement in these estimates, each the blind one and the last one of an agent that gave both."""
    changed = [(before, after) for before, after in moves if before != after]
    middle = median(before for before, _ in moves) if moves else None
    conformity = None
    if middle is not None:
        free = [(before, after) for before, after in changed if before != middle]
        if free:
            conformity = sum(abs(after - middle) < abs(before - middle) for before, after in free) / len(free)
    name = None if middle is None else f"{middle:g}"
    return Movement(len(moves), len(changed), (), name, conformity)


def _leader(tally: Mapping[str, float]) -> str | None:
    most = max(tally.values(), default=0)
    first = [answer for answer, votes in tally.items() if votes == most]
    return first[0] if most and len(first) == 1 else None
