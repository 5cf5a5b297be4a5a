"""What came of a deliberation, as the server shows it: the decision and what it rests on, and everybody who holds something else.

Texts that were erased read as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conclave_client.document import Document, named

__all__ = [
    "Change",
    "Claim",
    "Cluster",
    "Dissent",
    "Outcome",
    "Position",
    "Robustness",
    "Synthesis",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Position(Document):
    """A losing position: who holds it, and why."""

    answer: str
    count: int
    agents: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dissent(Document):
    """The minority report; `percentage` is of those who answered, None without a decision."""

    percentage: float | None
    positions: tuple[Position, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Document):
    """An agent that changed its answer after the blind round."""

    agent_id: str
    before: str = named("from")
    after: str = named("to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness(Document):
    """How firmly the decision stands; `votes_to_flip` is the fewest ballots that would make another win outright."""

    rules_agreeing: tuple[str, ...]
    votes_to_flip: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Document):
    """Agents whose texts say much the same."""

    name: str
    agents: tuple[str, ...]
    representative: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Document):
    """One sentence of one agent's text, and all agents whose text says it."""

    cluster: str
    text: str | None
    agents: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis(Document):
    """What texts come to: clusters, the largest first, and what is claimed in each."""

    method: str
    chosen: str | None
    clusters: tuple[Cluster, ...]
    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Document):
    """What the rule made of the ballots; `status` is `decided`, `tied` or `no_majority`."""

    status: str
    decision: str | float | None
    rule: str
    tally: Mapping[str, float]
    margin: float | None
    spread: float | None
    dissent: Dissent
    blind_tally: Mapping[str, float]
    changed: tuple[Change, ...]
    effective_votes: float | None
    robustness: Robustness
    ranking: tuple[str, ...] | None = None
    places: Mapping[str, int] | None = None
    tie_break: str | None = None
    outliers: tuple[str, ...] | None = None
    synthesis: Synthesis | None = None
