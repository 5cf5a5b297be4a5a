"""Effective votes against the formula, and on simulated juries of which truth and correlation are known."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.analysis.effective_votes import (
    ENOUGH_QUESTIONS,
    Basis,
    effective,
    measure_across,
    measure_within,
)
from domain.analysis.past import PastBallots
from domain.models.question import AnswerFormat, AnswerKind
from tests.simulated_jury import VERDICT, hear, jurors

_PUBLISHED = [(0.0, 72.0), (0.1, 8.9), (0.3, 3.2), (0.5, 2.0)]
_SCORE = AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)


@pytest.mark.parametrize(("correlation", "votes"), _PUBLISHED)
def test_seventy_two_votes_are_worth_what_is_published(correlation: float, votes: float) -> None:
    assert effective(72, correlation) == pytest.approx(votes, abs=0.05)


@given(st.integers(1, 500), st.floats(-1, 1))
def test_effective_votes_are_between_one_and_all(voters: int, correlation: float) -> None:
    assert 1 <= effective(voters, correlation) <= voters


@given(st.integers(2, 200), st.floats(0, 0.99), st.floats(0.001, 0.01))
def test_more_correlation_is_worth_less(voters: int, correlation: float, more: float) -> None:
    assert effective(voters, correlation + more) < effective(voters, correlation)


@pytest.mark.parametrize(("correlation", "votes"), _PUBLISHED)
@pytest.mark.parametrize("seed", range(3))
def test_a_jury_whose_questions_were_resolved_is_measured_within_a_fifth(
    correlation: float, votes: float, seed: int
) -> None:
    voices = jurors(72)
    past = hear(voices, questions=300, correlation=correlation, resolved=True, seed=seed)
    found = measure_across(VERDICT, voices, past)
    assert found is not None
    assert found.value is not None
    assert found.value == pytest.approx(votes, rel=0.2)
    assert found.low <= found.value <= found.high
    assert found.basis is Basis.RESOLVED


@pytest.mark.parametrize(("correlation", "votes"), _PUBLISHED)
def test_a_jury_is_measured_within_a_fifth_by_its_answers_where_the_truth_does_not_change(
    correlation: float, votes: float
) -> None:
    voices = jurors(72)
    found = measure_across(VERDICT, voices, hear(voices, questions=300, correlation=correlation, always_true=True))
    assert found is not None
    assert found.value == pytest.approx(votes, rel=0.2)
    assert found.basis is Basis.ANSWERS


@pytest.mark.parametrize(("correlation", "votes"), _PUBLISHED)
def test_where_the_truth_is_not_known_a_jury_is_never_said_to_be_worth_more_than_it_is(
    correlation: float, votes: float
) -> None:
    voices = jurors(72)
    found = measure_across(VERDICT, voices, hear(voices, questions=300, correlation=correlation))
    assert found is not None
    assert found.value is not None
    assert found.value < 1.2 * votes
    assert "at least" in found.note


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    voices, held = jurors(24), 0
    for seed in range(60):
        found = measure_across(VERDICT, voices, hear(voices, questions=60, correlation=0.1, resolved=True, seed=seed))
        assert found is not None
        held += found.low <= effective(24, 0.1) <= found.high
    assert held >= 51


def test_too_few_questions_give_an_interval_and_no_number() -> None:
    voices = jurors(12)
    found = measure_across(VERDICT, voices, hear(voices, questions=ENOUGH_QUESTIONS - 1, correlation=0.3))
    assert found is not None
    assert found.value is None
    assert found.low < found.high
    assert f"{ENOUGH_QUESTIONS} are wanted" in found.note


def test_enough_questions_give_a_number() -> None:
    voices = jurors(12)
    found = measure_across(VERDICT, voices, hear(voices, questions=ENOUGH_QUESTIONS, correlation=0.3))
    assert found is not None
    assert found.value is not None


def test_without_earlier_deliberations_nothing_is_measured_across() -> None:
    assert measure_across(VERDICT, jurors(12), []) is None


def test_ballots_of_other_voices_do_not_count() -> None:
    heard = hear(jurors(12), questions=50, correlation=0.3)
    assert measure_across(VERDICT, jurors(12, models=["another"]), heard) is None


def test_scores_on_another_range_do_not_count() -> None:
    other = AnswerFormat(AnswerKind.SCORE, (), 0.0, 100.0)
    assert measure_across(other, jurors(4), _scored(60)) is None


def test_scores_of_resolved_questions_are_compared_by_their_errors() -> None:
    # All are wrong by the same amount, which changes from question to question: one vote.
    found = measure_across(_SCORE, jurors(4), _scored(60))
    assert found is not None
    assert found.value == pytest.approx(1, abs=0.01)
    assert found.basis is Basis.RESOLVED


def test_scores_that_follow_the_truth_are_no_less_independent_for_that() -> None:
    draw = random.Random(4)
    past = [
        replace(each, blind={voice: number % 7 + draw.gauss(0, 1) for voice in each.blind}, truth=float(number % 7))
        for number, each in enumerate(_scored(100))
    ]
    found = measure_across(_SCORE, jurors(4), past)
    assert found is not None
    assert found.value == pytest.approx(4, rel=0.1)


def test_numbers_of_different_questions_are_never_compared() -> None:
    number = AnswerFormat(AnswerKind.NUMBER, unit="km")
    past = [PastBallots(each.deliberation_id, each.finished_at, number, each.blind) for each in _scored(60)]
    assert measure_across(number, jurors(4), past) is None


def test_one_question_says_only_that_it_is_between_one_and_all() -> None:
    found = measure_within(dict.fromkeys(jurors(72), "yes"))
    assert (found.value, found.low, found.high, found.basis) == (None, 1.0, 72.0, Basis.ONE_QUESTION)


def test_models_that_each_say_one_thing_are_worth_as_many_votes_as_models_at_most() -> None:
    voices = jurors(8, models=["a", "b"])
    found = measure_within({voice: voice[1] or "" for voice in voices})
    assert found.high == pytest.approx(2)


def test_models_that_say_the_same_leave_the_upper_bound_alone() -> None:
    voices = jurors(8, models=["a", "b"])
    found = measure_within({voice: "yes" if number < 4 else "no" for number, voice in enumerate(voices)})
    assert found.high == 8


def _scored(questions: int) -> list[PastBallots]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        PastBallots(
            f"s-{number}",
            at,
            _SCORE,
            {voice: 5.0 + number % 3 + 0.001 * place for place, voice in enumerate(jurors(4))},
            None,
            5.0,
        )
        for number in range(questions)
    ]
