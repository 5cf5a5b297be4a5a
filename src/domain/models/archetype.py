"""Archetypes: the agents of a deliberation, each as the beginning of a community of simulated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot

__all__ = ["MAX_ARCHETYPES", "Archetype", "Decision", "archetypes_of", "decision_of", "rows_of_archetypes"]

MAX_ARCHETYPES = 1_000

_UNSURE = 0.5


@dataclass(frozen=True, slots=True)
class Archetype:
    """One agent of a deliberation: where its answer lies between 0 and 1, how sure it is of it, and how large its community is.

    `quota` is the share of the population in proportion to all quotas.
    """

    name: str
    answer: str
    opinion: float
    confidence: float = _UNSURE
    quota: int = 1
    reason: str = ""

    def problem(self) -> str | None:
        """What is wrong with it."""
        if not 0.0 <= self.opinion <= 1.0 or not 0.0 <= self.confidence <= 1.0:
            return "has an opinion or a confidence that is none from 0 to 1"
        return None if 1 <= self.quota <= 1_000_000 else "has no quota from 1 to 1000000"

    @property
    def spread(self) -> float:
        """How far the opinions of its community lie apart: nothing when it is certain, half of the scale when it is not at all."""
        return 0.5 * (1.0 - self.confidence)


@dataclass(frozen=True, slots=True)
class Decision:
    """What the deliberation decided, and its place between 0 and 1, None where it has none; `answer` is None without a decision."""

    answer: str | None
    opinion: float | None = None

    def problem(self) -> str | None:
        """What is wrong with it."""
        placed = self.opinion is None or 0.0 <= self.opinion <= 1.0
        return None if placed else "has an opinion that is none from 0 to 1"


def archetypes_of(form: AnswerFormat, ballots: Sequence[Ballot]) -> list[Archetype]:
    """One archetype for each ballot that answers, all of one size.

    An opinion is the place of the answer: of an option among all options in their order (the first one of several), yes 1 and no
    0, a score within its range, a probability as it is, a number between the least and the largest answered. Texts have no place.
    Raises `InvalidPopulationError` where nothing has one.
    """
    answered = [ballot for ballot in ballots if not ballot.abstains]
    least, most = _range_of(form, answered)
    found = []
    for ballot in answered:
        place = _place(ballot.answer, form, least, most)
        if place is not None:
            sure = _UNSURE if ballot.confidence is None else ballot.confidence
            answer = ballot.answer if not isinstance(ballot.answer, tuple) else ballot.answer[0]
            found.append(Archetype(ballot.agent_id, str(answer), place, sure, reason=ballot.reasoning or ""))
    if not found:
        raise InvalidPopulationError(
            [FieldProblem("/from", "names a deliberation with no answer that has a place between two others")]
        )
    return found


def decision_of(form: AnswerFormat, ballots: Sequence[Ballot], decided: str | float | None) -> Decision:
    """Where what was `decided` lies, on the scale that these ballots have as archetypes."""
    if decided is None:
        return Decision(None)
    least, most = _range_of(form, [ballot for ballot in ballots if not ballot.abstains])
    return Decision(str(decided), _place(decided, form, least, most))


def rows_of_archetypes(archetypes: Sequence[Archetype], agents: int, *, locality: int) -> list[range]:
    """The rows of each community, in order: shares by quota, whole localities where there are enough of them."""
    total = sum(archetype.quota for archetype in archetypes)
    unit = locality if agents >= locality * len(archetypes) else 1
    ends, sum_ = [], 0
    for archetype in archetypes:
        sum_ += archetype.quota
        ends.append(agents * sum_ // total // unit * unit)
    ends[-1] = agents
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _range_of(form: AnswerFormat, answered: Sequence[Ballot]) -> tuple[float, float]:
    """The answers that lie at 0 and at 1."""
    numbers = [float(ballot.answer) for ballot in answered if isinstance(ballot.answer, int | float)]
    least, most = (form.minimum, form.maximum) if form.kind is AnswerKind.SCORE else (None, None)
    if form.kind is AnswerKind.PROBABILITY:
        least, most = 0.0, 1.0
    if least is None or most is None:
        least, most = min(numbers, default=0.0), max(numbers, default=0.0)
    return least, most


def _place(answer: Answer, form: AnswerFormat, least: float, most: float) -> float | None:
    if isinstance(answer, tuple):
        answer = answer[0] if answer else None
    if isinstance(answer, int | float):
        return min(1.0, max(0.0, (answer - least) / (most - least))) if most > least else 0.5
    if form.kind is AnswerKind.VERDICT:
        return {"yes": 1.0, "no": 0.0}.get(str(answer))
    if answer in form.options:
        return form.options.index(str(answer)) / max(1, len(form.options) - 1)
    return None
