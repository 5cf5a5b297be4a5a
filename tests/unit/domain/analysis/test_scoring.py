"""Scores: how far answers were from what turned out to be true."""

from __future__ import annotations

from fractions import Fraction

import pytest

from domain.analysis.scoring import (
    Given,
    loss_of,
    loss_of_knowing_nothing,
    read_truth,
    recorded_truth,
    score,
    truth_of,
)
from domain.errors.deliberation import FieldProblem
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer

OPTIONS = ("trams", "buses", "bicycles", "feet")
CHOICE = AnswerFormat(AnswerKind.CHOICE, OPTIONS)
APPROVAL = AnswerFormat(AnswerKind.APPROVAL, OPTIONS)
RANKING = AnswerFormat(AnswerKind.RANKING, OPTIONS)
VERDICT = AnswerFormat(AnswerKind.VERDICT)
PROBABILITY = AnswerFormat(AnswerKind.PROBABILITY)
SCORE = AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=10)
NUMBER = AnswerFormat(AnswerKind.NUMBER, unit="km")
TEXT = AnswerFormat(AnswerKind.TEXT)


def given(answer: Answer, confidence: float | None = None, agent: str = "a") -> Given:
    return Given(agent, "small", answer, confidence)


def loss(form: AnswerFormat, truth: Answer, answer: Answer, confidence: float | None = None) -> Fraction:
    return loss_of(form, truth, given(answer, confidence), [given(answer)])


@pytest.mark.parametrize(
    ("form", "truth", "answer", "confidence", "expected"),
    [
        (VERDICT, "yes", "yes", 0.8, Fraction(4, 100)),
        (VERDICT, "yes", "no", 0.8, Fraction(64, 100)),
        (VERDICT, "yes", "yes", None, Fraction(0)),
        (VERDICT, "yes", "no", None, Fraction(1)),
        (CHOICE, "trams", "trams", 1.0, Fraction(0)),
        (CHOICE, "trams", "buses", 1.0, Fraction(1)),
        (CHOICE, "trams", "trams", 0.25, Fraction(3, 8)),
        (PROBABILITY, 1.0, 0.8, None, Fraction(4, 100)),
        (PROBABILITY, 0.0, 0.8, None, Fraction(64, 100)),
        (SCORE, 8.0, 3.0, None, Fraction(1, 4)),
        (APPROVAL, ("trams", "buses"), ("trams", "feet"), None, Fraction(1, 2)),
        (RANKING, ("trams",), ("buses", "trams"), None, Fraction(1, 3)),
        (RANKING, OPTIONS, tuple(reversed(OPTIONS)), None, Fraction(1)),
        (RANKING, OPTIONS, ("trams",), None, Fraction(1, 4)),
    ],
)
def test_a_score_is_the_squared_distance_or_the_share_that_is_wrong(
    form: AnswerFormat, truth: Answer, answer: Answer, confidence: float | None, expected: Fraction
) -> None:
    assert loss(form, truth, answer, confidence) == expected


def test_a_number_is_measured_by_the_median_error_of_everybody() -> None:
    crowd = [given(90.0), given(110.0), given(130.0)]
    assert loss_of(NUMBER, 100.0, crowd[0], crowd) == Fraction(1, 2)
    assert loss_of(NUMBER, 100.0, crowd[2], crowd) == Fraction(3, 4)
    assert loss_of(NUMBER, 100.0, given(100.0), crowd) == 0


@pytest.mark.parametrize("sure", [0.25, None])
def test_whoever_says_every_option_is_as_likely_scores_as_knowing_nothing(sure: float | None) -> None:
    guess = loss(CHOICE, "trams", "buses", 0.25)
    assert guess == loss_of_knowing_nothing(CHOICE, "trams")
    assert (loss(CHOICE, "trams", "buses", sure) > guess) is (sure is None)


@pytest.mark.parametrize(
    ("form", "told", "truth"),
    [
        (CHOICE, "trams", "trams"),
        (VERDICT, True, "yes"),
        (VERDICT, "no", "no"),
        (PROBABILITY, True, 1.0),
        (PROBABILITY, "no", 0.0),
        (PROBABILITY, 0.25, 0.25),
        (SCORE, 10, 10.0),
        (NUMBER, -3.5, -3.5),
        (APPROVAL, [], ()),
        (APPROVAL, "feet", ("feet",)),
        (RANKING, ["feet", "trams"], ("feet", "trams")),
    ],
)
def test_a_truth_is_recorded_and_read_again(form: AnswerFormat, told: object, truth: Answer) -> None:
    assert read_truth(form, told) == truth
    assert truth_of(form, recorded_truth(form, truth)) == truth


@pytest.mark.parametrize(
    ("form", "told"),
    [
        (CHOICE, "ferries"),
        (CHOICE, ["trams"]),
        (CHOICE, 0),
        (VERDICT, "perhaps"),
        (VERDICT, 1),
        (PROBABILITY, 1.5),
        (PROBABILITY, "70%"),
        (SCORE, 11),
        (SCORE, True),
        (NUMBER, float("nan")),
        (NUMBER, 10**400),
        (NUMBER, "7"),
        (APPROVAL, ["feet", "feet"]),
        (APPROVAL, [["feet"]]),
        (RANKING, []),
        (RANKING, ["feet", None]),
        (TEXT, "anything"),
        (CHOICE, None),
    ],
)
def test_what_is_no_answer_to_the_question_is_no_truth(form: AnswerFormat, told: object) -> None:
    problem = read_truth(form, told)
    assert isinstance(problem, FieldProblem)
    assert problem.pointer == "/answer"


@pytest.mark.parametrize(
    ("form", "recorded"),
    [
        (CHOICE, 4),
        (CHOICE, -1),
        (CHOICE, [0]),
        (CHOICE, True),
        (APPROVAL, 0),
        (VERDICT, True),
        (SCORE, 11),
        (RANKING, []),
    ],
)
def test_a_recorded_truth_that_nobody_could_have_told_is_refused(form: AnswerFormat, recorded: object) -> None:
    with pytest.raises(ValueError, match="truth"):
        truth_of(form, recorded)


def test_the_outcome_of_a_choice_is_scored_by_the_shares_of_its_votes() -> None:
    votes = [given("yes", agent=str(number)) for number in range(7)] + [given("no", agent=f"n{n}") for n in range(3)]
    members = [each.agent_id for each in votes]
    found = score(VERDICT, votes, "yes", members=[*members, "silent"], completed=True, decision="yes")
    assert found.brier == pytest.approx(0.09)
    assert found.correct is True
    assert found.agents["silent"] is None
    assert [found.agents["0"], found.agents["n0"]] == [0.0, 1.0]


def test_the_outcome_of_a_probability_is_its_squared_error() -> None:
    found = score(PROBABILITY, [given(0.9), given(0.5)], 1.0, members=["a"], completed=True, decision=0.7)
    assert found.brier == pytest.approx(0.09)
    assert found.correct is None
    assert found.error == pytest.approx(-0.3)


def test_a_number_has_an_error_and_no_brier_score() -> None:
    found = score(NUMBER, [given(12.0)], 10.0, members=["a"], completed=True, decision=12.0)
    assert (found.brier, found.correct, found.error) == (None, None, 2.0)


def test_what_was_not_completed_has_scores_of_agents_and_none_of_an_outcome() -> None:
    found = score(VERDICT, [given("yes")], "yes", members=["a"], completed=False, decision=None)
    assert (found.brier, found.correct) == (None, None)
    assert found.agents == {"a": 0.0}
