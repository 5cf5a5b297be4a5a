"""What a result is worth, as the server derives it from the ballots and from earlier ones of the same agents."""

from __future__ import annotations

from dataclasses import dataclass

from conclave_client.document import Document, named

__all__ = [
    "Agreement",
    "Copies",
    "Division",
    "Divisions",
    "DropOut",
    "EffectiveVotes",
    "Flow",
    "LeftOut",
    "MeasuredVotes",
    "Movement",
    "Winner",
    "WithoutOne",
    "Worth",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DropOut(Document):
    """A model or persona group of which more is missing than of the others, and not by chance."""

    kind: str
    group: str
    missing: int
    asked: int
    missing_elsewhere: int
    asked_elsewhere: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Winner(Document):
    """What one rule decides on the same ballots."""

    rule: str
    status: str
    decision: str | float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut(Document):
    """Leaving out one at a time: who is pivotal, and for estimates how far the result moves."""

    pivotal: tuple[str, ...]
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutOne(Document):
    """The result without one agent, one model or one persona group; None where there is none to compare, or too many."""

    agent: LeftOut | None
    model: LeftOut | None
    persona: LeftOut | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Document):
    """So many agents went from one answer to another."""

    count: int
    before: str = named("from")
    after: str = named("to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement(Document):
    """Who changed between the blind round and the last, and to whom."""

    changeable: int
    changed: int
    flows: tuple[Flow, ...]
    blind_leader: str | None
    conformity: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Division(Document):
    """How divided the answers are; `polarisation` is 0 for one camp and 1 for two equal ones."""

    entropy_bits: float | None
    polarisation: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divisions(Document):
    """In the blind round and in the end."""

    blind: Division
    final: Division


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveVotes(Document):
    """So many independent votes are these worth, with an interval of 95 %."""

    value: float | None
    low: float
    high: float
    voters: int
    correlation: float | None
    questions: int
    basis: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredVotes(Document):
    """What earlier deliberations of these agents say, and what this one alone can say."""

    across: EffectiveVotes | None
    within: EffectiveVotes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies(Document):
    """Agents that answer like each other more often than chance allows."""

    agents: tuple[str, ...]
    agreement: float
    questions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Document):
    """The share on the largest position in the latest deliberations of these agents, oldest first."""

    shares: tuple[float, ...]
    sustained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth(Document):
    """What the result is worth; `warnings` are for a reader, the gravest first."""

    warnings: tuple[str, ...]
    drop_out: tuple[DropOut, ...]
    winners: tuple[Winner, ...]
    without_one: WithoutOne
    movement: Movement | None
    division: Divisions
    effective_votes: MeasuredVotes
    copies: tuple[Copies, ...]
    same_words: tuple[tuple[str, ...], ...]
    agreement: Agreement
