"""Effective votes: how many independent votes those of correlated agents are worth, and what that is known from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.analysis.agreement import Correlation, category_correlation, estimate_correlation
from domain.analysis.past import PastBallots, Voice, category_of
from domain.models.question import AnswerFormat, AnswerKind

__all__ = ["ENOUGH_QUESTIONS", "Basis", "EffectiveVotes", "effective", "measure_across", "measure_within"]

ENOUGH_QUESTIONS = 30
"""So many questions are asked for before effective votes are stated as one number."""


class Basis(StrEnum):
    """What effective votes are known from."""

    RESOLVED = "resolved"
    ANSWERS = "answers"
    ONE_QUESTION = "one_question"


@dataclass(frozen=True, slots=True)
class EffectiveVotes:
    """So many independent votes are the `voters` worth, from `low` to `high`; `value` is None where it cannot be known.

    With `Basis.RESOLVED` the correlation is that of being right. With `Basis.ANSWERS` it is that of the answers, in which
    agreeing because something is plainly true counts as well: the true number is then at least as high. With
    `Basis.ONE_QUESTION` only the bounds say anything.
    """

    voters: int
    value: float | None
    low: float
    high: float
    correlation: float | None
    questions: int
    basis: Basis
    note: str


def effective(voters: int, correlation: float) -> float:
    """n / (1 + (n - 1) rho): the design effect of Kish (1965), the correlation cut at 0 and 1."""
    return voters / (1 + (voters - 1) * min(max(correlation, 0.0), 1.0)) if voters else 0.0


def measure_across(answer: AnswerFormat, voices: Sequence[Voice], past: Sequence[PastBallots]) -> EffectiveVotes | None:
    """What the blind ballots of these voices in earlier deliberations say; None with fewer than two comparable questions.

    Comparable are questions answered by options, for a question answered by options; and for an estimate those of the same kind
    and range. Where `ENOUGH_QUESTIONS` of them are resolved, only those are taken.
    """
    found, basis = _correlation(answer, frozenset(voices), past)
    if found is None:
        return None
    voters = len(voices)
    low, high = effective(voters, found.high), effective(voters, found.low)
    if found.questions < ENOUGH_QUESTIONS:
        note = f"measured on {found.questions} questions, and {ENOUGH_QUESTIONS} are wanted for one number"
        return EffectiveVotes(voters, None, low, high, found.value, found.questions, basis, note)
    note = (
        f"measured on {found.questions} resolved questions"
        if basis is Basis.RESOLVED
        else f"measured on {found.questions} questions whose truth is not known, so agreeing on what is plainly true counts "
        "against it: at least so many"
    )
    value = effective(voters, found.value)
    return EffectiveVotes(voters, value, low, high, found.value, found.questions, basis, note)


def measure_within(categories: Mapping[Voice, Hashable]) -> EffectiveVotes:
    """What one question can say: bounds, and no number.

    On one question nobody can tell voices that agree because it is true from voices that make the same mistake, so the lower
    bound is 1. The upper bound takes the agreement within models beyond that between models as correlation:
    n^2 / (n + rho * sum of n_m (n_m - 1)), and is n where there is nothing to compare.
    """
    voters = len(categories)
    by_model: dict[str | None, dict[Hashable, int]] = {}
    overall: dict[Hashable, int] = {}
    for (_, model), category in categories.items():
        counts = by_model.setdefault(model, {})
        counts[category] = counts.get(category, 0) + 1
        overall[category] = overall.get(category, 0) + 1
    within_pairs = sum(size * (size - 1) for size in (sum(counts.values()) for counts in by_model.values()))
    between_pairs = voters * (voters - 1) - within_pairs
    high = float(voters)
    if len(by_model) > 1 and within_pairs and between_pairs:
        agreeing = sum(count * (count - 1) for count in overall.values())
        agreeing_within = sum(count * (count - 1) for counts in by_model.values() for count in counts.values())
        chance = (agreeing - agreeing_within) / between_pairs
        if chance < 1:
            correlation = max((agreeing_within / within_pairs - chance) / (1 - chance), 0.0)
            high = voters**2 / (voters + correlation * within_pairs)
    note = "one question cannot tell agreeing because it is true from making the same mistake"
    return EffectiveVotes(voters, None, min(1.0, float(voters)), high, None, 1, Basis.ONE_QUESTION, note)


def _correlation(
    answer: AnswerFormat, voices: frozenset[Voice], past: Sequence[PastBallots]
) -> tuple[Correlation | None, Basis]:
    comparable = [each for each in past if _is_comparable(answer, each.answer)]
    resolved = [each for each in comparable if each.truth is not None]
    is_resolved = len(resolved) >= ENOUGH_QUESTIONS
    basis = Basis.RESOLVED if is_resolved else Basis.ANSWERS
    taken = resolved if is_resolved else comparable
    if answer.kind.is_estimate:
        return estimate_correlation([_errors(each, voices) for each in taken]), basis
    if is_resolved:
        return category_correlation([(2, [_rights(each, voices) for each in taken])]), basis
    groups: dict[tuple[str, ...], list[Mapping[Hashable, int]]] = {}
    for each in taken:
        groups.setdefault(_categories(each.answer), []).append(_counts(each, voices))
    return category_correlation([(len(categories), counts) for categories, counts in groups.items()]), basis


def _is_comparable(one: AnswerFormat, other: AnswerFormat) -> bool:
    if one.kind.is_estimate:
        # Numbers of different questions count different things, so only scores of one range and probabilities compare.
        return one.kind is not AnswerKind.NUMBER and (one.kind, one.minimum, one.maximum) == (
            other.kind,
            other.minimum,
            other.maximum,
        )
    return other.kind in {AnswerKind.CHOICE, AnswerKind.VERDICT, AnswerKind.RANKING}


def _categories(answer: AnswerFormat) -> tuple[str, ...]:
    return ("yes", "no") if answer.kind is AnswerKind.VERDICT else answer.options


def _counts(past: PastBallots, voices: frozenset[Voice]) -> Counter[Hashable]:
    counts: Counter[Hashable] = Counter(map(past.categories.get, voices))
    del counts[None]
    return counts


def _rights(past: PastBallots, voices: frozenset[Voice]) -> dict[Hashable, int]:
    truth = category_of(past.truth, past.answer.kind)
    counts = _counts(past, voices)
    right = counts[truth]
    return {True: right, False: sum(counts.values()) - right}


def _errors(past: PastBallots, voices: frozenset[Voice]) -> list[float]:
    # Of a resolved question how far off each is, else the estimates themselves, in which the truth is a part that all share.
    truth = past.truth if isinstance(past.truth, float) else 0.0
    return [answer - truth for voice, answer in past.blind.items() if voice in voices and isinstance(answer, float)]
