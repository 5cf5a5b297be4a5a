"""The outcome of a deliberation: the decision or the honest tie, and everything that argues against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Change", "Dissent", "Outcome", "OutcomeStatus", "Position"]


class OutcomeStatus(StrEnum):
    """Whether there is a decision."""

    DECIDED = "decided"
    TIED = "tied"
    NO_MAJORITY = "no_majority"


@dataclass(frozen=True, slots=True)
class Position:
    """One losing position: the answer, who holds it and the reasons they gave."""

    answer: str
    agents: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many hold it."""
        return len(self.agents)


@dataclass(frozen=True, slots=True)
class Dissent:
    """The minority report; `percentage` is of those who answered, None when there is no decision to dissent from."""

    percentage: float | None = None
    positions: tuple[Position, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """An agent that changed its answer between the blind round and the last."""

    agent_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rule made of the ballots.

    `margin` counts votes (None for estimates, which have `spread`, the interquartile range, instead). `votes_to_flip` is the
    fewest ballots changed so that another wins outright, None where that is not defined.
    """

    status: OutcomeStatus
    rule: str
    decision: str | float | None = None
    tally: Mapping[str, int] = field(default_factory=dict)
    margin: int | None = None
    spread: float | None = None
    dissent: Dissent = field(default_factory=Dissent)
    blind_tally: Mapping[str, int] = field(default_factory=dict)
    changed: tuple[Change, ...] = ()
    effective_votes: float | None = None
    rules_agreeing: tuple[str, ...] = ()
    votes_to_flip: int | None = None
