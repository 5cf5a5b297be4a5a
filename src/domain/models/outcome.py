"""The outcome of a deliberation: the decision or the honest tie, and everything that argues against it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Change", "Claim", "Cluster", "Dissent", "Outcome", "OutcomeStatus", "Position", "Synthesis"]


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
class Cluster:
    """Agents whose texts say much the same; the `representative` is the one whose text is nearest to all of them."""

    agents: tuple[str, ...]
    representative: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence of one agent's text, and everyone whose text says it too; the `text` is None once it is erased.

    `source` and `sentence` (from 0) say where it stands, so that whoever has the text of the answer finds it there.
    """

    cluster: int
    source: str
    sentence: int
    agents: tuple[str, ...]
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Synthesis:
    """What texts come to: clusters, the largest first, and the claims made in them.

    `method` says what compared the texts, `chosen` which cluster decided, by the name under which it stands in the tally.
    """

    method: str
    clusters: tuple[Cluster, ...]
    claims: tuple[Claim, ...] = ()
    chosen: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rule made of the ballots.

    `margin` counts votes (None for estimates, which have `spread`, the interquartile range, instead). `votes_to_flip` is the
    fewest ballots changed so that another wins outright, None where that is not defined. `places` are those of the options, in the
    order in which they stand in `tally`: 1 for the first, as many for those who share it. `tie_break` is what broke a tie, where one
    was broken. `outliers` are agents whose estimates lie far from all others.
    """

    status: OutcomeStatus
    rule: str
    decision: str | float | None = None
    tally: Mapping[str, float] = field(default_factory=dict)
    margin: float | None = None
    spread: float | None = None
    dissent: Dissent = field(default_factory=Dissent)
    blind_tally: Mapping[str, float] = field(default_factory=dict)
    changed: tuple[Change, ...] = ()
    effective_votes: float | None = None
    rules_agreeing: tuple[str, ...] = ()
    votes_to_flip: int | None = None
    places: tuple[int, ...] = ()
    tie_break: str | None = None
    outliers: tuple[str, ...] = ()
    synthesis: Synthesis | None = None
