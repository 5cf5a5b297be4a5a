"""What a protocol asks for next: a round, who is asked in it and for what, and what each of them is shown of the others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from domain.models.question import AnswerFormat
from domain.voting.ballot import Answer

__all__ = ["Asked", "Brief", "Exhibit", "ExhibitKind", "Purpose", "RoundPlan"]


class Purpose(StrEnum):
    """What the agents of a round are asked to do."""

    ANSWER = "answer"
    REVISE = "revise"
    REVIEW = "review"
    POSITION = "position"
    CROSS_EXAMINE = "cross_examine"
    VOTE = "vote"
    DRAFT = "draft"
    RANK = "rank"
    CRITIQUE = "critique"
    REDRAFT = "redraft"


class ExhibitKind(StrEnum):
    """What a piece of somebody's words is to whoever is shown it."""

    OWN = "own"
    ARGUMENT = "argument"
    ANSWER = "answer"
    REVIEW = "review"
    NEIGHBOUR = "neighbour"
    OBJECTION = "objection"
    OPINION = "opinion"
    STATEMENT = "statement"
    CRITIQUE = "critique"


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A piece of what an agent said, as data for another: what it is called, the answer given, and the words, cut to a size.

    The label is the protocol's own and names nobody; `answer` and `words` were written by an agent and are trusted in nothing.
    """

    kind: ExhibitKind
    label: str
    answer: Answer = None
    words: str | None = None


@dataclass(frozen=True, slots=True)
class Brief:
    """What one agent is told beyond the question: the purpose, figures by their names, and exhibits.

    `mark` fences them. It is hashed from all that was said so far, so nobody who writes something that is shown can know it.
    """

    purpose: Purpose
    mark: str
    figures: tuple[tuple[str, str], ...] = ()
    exhibits: tuple[Exhibit, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """One agent of a round: what it is shown, nothing in the blind round, and which answer it is to give."""

    agent_id: str
    expected: AnswerFormat
    brief: Brief | None = None


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round, before anybody is asked. `answers` is the format that its answers are recorded in."""

    number: int
    purpose: Purpose
    answers: AnswerFormat
    asked: tuple[Asked, ...]
    wave_size: int | None = None
