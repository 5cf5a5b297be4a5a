"""Track records: how right agents and models were where the truth is known by now, and what their votes may weigh for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from domain.analysis.scoring import Given, is_right, loss_of, loss_of_knowing_nothing
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE, exactly

__all__ = ["SHRINKS_LIKE", "Bin", "Resolved", "Standing", "TrackRecord", "calibration_of"]

SHRINKS_LIKE = 10
"""A record of so many questions counts half, one of more counts more: as if so many had said nothing."""

_LEAST, _MOST = Fraction(1, 10), Fraction(2)
_BINS = 10
_WHOLE = Fraction(1)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A question whose truth is known, and what was answered to it."""

    deliberation_id: str
    answer: AnswerFormat
    truth: Answer
    given: tuple[Given, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one agent or model did: on how many questions, its mean score, its skill, and what its vote weighs.

    The skill is 1 for always right, 0 for as good as knowing nothing, and no less than -1. `weight` is in hundredths of a vote.
    """

    questions: int
    score: float
    skill: Fraction
    weight: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose stated confidence lies from `low` to `high`: how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    count: int
    stated: float | None
    right: float | None


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """What the resolved questions say of everybody who answered any of them."""

    agents: Mapping[str, Standing] = field(default_factory=dict)
    models: Mapping[str, Standing] = field(default_factory=dict)
    calibration: tuple[Bin, ...] = ()
    questions: int = 0

    @classmethod
    def of(cls, resolved: Sequence[Resolved]) -> TrackRecord:
        """The record over these questions. Each counts once for an agent, and once for a model, however many agents it spoke for."""
        agents: dict[str, list[tuple[Fraction, Fraction]]] = {}
        models: dict[str, list[tuple[Fraction, Fraction]]] = {}
        for each in resolved:
            by_model: dict[str, list[tuple[Fraction, Fraction]]] = {}
            for given in each.given:
                loss = loss_of(each.answer, each.truth, given, each.given)
                point = (loss, _skill(loss, loss_of_knowing_nothing(each.answer, each.truth)))
                agents.setdefault(given.agent_id, []).append(point)
                if given.model is not None:
                    by_model.setdefault(given.model, []).append(point)
            for model, points in by_model.items():
                models.setdefault(model, []).append((_mean(p[0] for p in points), _mean(p[1] for p in points)))
        return cls(
            {name: _standing(points) for name, points in agents.items()},
            {name: _standing(points) for name, points in models.items()},
            calibration_of(resolved),
            len(resolved),
        )

    def weight(self, agent_id: str, model: str | None) -> int:
        """Hundredths of a vote for an agent that is to be answered for by that model.

        Its own record is shrunk towards that of the model, and the model's towards a whole vote: w = prior + n / (n + 10) * (1 + skill -
        prior), from a tenth of a vote to two. Whoever has no record has a whole one.
        """
        prior = _WHOLE
        if model is not None and model in self.models:
            prior = _shrunk(self.models[model], _WHOLE)
        own = self.agents.get(agent_id)
        return _hundredths(prior if own is None else _shrunk(own, prior))


def calibration_of(resolved: Iterable[Resolved]) -> tuple[Bin, ...]:
    """Ten bins of confidence: of a choice or verdict what was stated beside it, of a probability the probability itself."""
    said: list[tuple[Fraction, Fraction]] = []
    for each in resolved:
        for given in each.given:
            if each.answer.kind is AnswerKind.PROBABILITY:
                if isinstance(given.answer, int | float) and isinstance(each.truth, int | float):
                    said.append((exactly(float(given.answer)), exactly(float(each.truth))))
            elif each.answer.kind in {AnswerKind.CHOICE, AnswerKind.VERDICT} and given.confidence is not None:
                right = is_right(each.answer, each.truth, given.answer)
                said.append((exactly(given.confidence), Fraction(int(bool(right)))))
    bins = []
    for place in range(_BINS):
        held = [pair for pair in said if min(int(pair[0] * _BINS), _BINS - 1) == place]
        stated, right_share = (_mean(p[0] for p in held), _mean(p[1] for p in held)) if held else (None, None)
        bins.append(
            Bin(
                place / _BINS,
                (place + 1) / _BINS,
                len(held),
                None if stated is None else float(stated),
                None if right_share is None else float(right_share),
            )
        )
    return tuple(bins)


def _skill(loss: Fraction, naive: Fraction) -> Fraction:
    """How much better than whoever knows nothing: 1 for always right, 0 for the same, -1 for twice as bad and worse."""
    if not naive:
        # Of what is exactly as likely as not, whoever says so is right, and nobody can be better than knowing nothing.
        return Fraction(0) if not loss else Fraction(-1)
    return max(1 - loss / naive, Fraction(-1))


def _standing(points: Sequence[tuple[Fraction, Fraction]]) -> Standing:
    skill = _mean(point[1] for point in points)
    found = Standing(len(points), float(_mean(point[0] for point in points)), skill, 0)
    return Standing(found.questions, found.score, skill, _hundredths(_shrunk(found, _WHOLE)))


def _shrunk(standing: Standing, prior: Fraction) -> Fraction:
    count = standing.questions
    return prior + Fraction(count, count + SHRINKS_LIKE) * (1 + standing.skill - prior)


def _hundredths(weight: Fraction) -> int:
    return round(min(max(weight, _LEAST), _MOST) * UNITS_OF_A_WEIGHTED_VOTE)


def _mean(numbers: Iterable[Fraction]) -> Fraction:
    known = list(numbers)
    return sum(known, Fraction(0)) / len(known)
