"""Medians, trimmed means and mean odds: exact in what was written, rounded once."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import ballots, count

PROBABILITIES = st.floats(0.001, 0.999)


def estimate(kind: str, *numbers: float, fraction: float | None = None) -> Outcome:
    return count(Rule(RuleKind(kind), fraction), (), ballots(*map(float, numbers)), kind="probability")


def sure(kind: str, *pairs: tuple[float, float]) -> Outcome:
    given_ballots = [Ballot(f"a{n}", float(number), confidence) for n, (number, confidence) in enumerate(pairs)]
    return count(Rule(RuleKind(kind), weighted_by="confidence"), (), given_ballots, kind="probability")


def test_a_median_between_two_numbers_is_the_one_that_was_meant() -> None:
    # In binary arithmetic it is 0.15000000000000002.
    assert estimate("median", 0.1, 0.2).decision == 0.15


def test_an_estimate_has_a_spread_and_no_margin() -> None:
    outcome = estimate("median", 1, 2, 3, 4)
    assert (outcome.spread, outcome.margin, outcome.votes_to_flip) == (1.5, None, None)


def test_a_spread_too_large_for_a_number_is_the_largest() -> None:
    assert estimate("median", -1.7e308, 1.7e308).spread == 1.7e308
    assert estimate("median", *[-1.7e308] * 2, *[1.7e308] * 2).spread == 1.7976931348623157e308


def test_agents_far_from_all_others_are_named() -> None:
    outcome = estimate("median", 10, 11, 12, 11, 10, 900)
    assert outcome.outliers == ("archon-6",)
    assert estimate("median", 1, 2, 3, 4).outliers == ()
    # Of these the quartiles are 1 and 3, so that the fences stand at -2 and 6.
    assert estimate("median", 0, 1, 2, 3, 6).outliers == ()
    assert estimate("median", 0, 1, 2, 3, 6.1).outliers == ("archon-5",)


def test_a_trimmed_mean_drops_a_tenth_a_side() -> None:
    numbers = [0.0, *[10.0] * 18, 1000.0]
    assert estimate("trimmed_mean", *numbers).decision == 10.0


@pytest.mark.parametrize(("size", "expected"), [(9, 100 / 9), (10, 0.0), (11, 0.0)])
def test_a_trimmed_mean_drops_one_a_side_from_ten_on(size: int, expected: float) -> None:
    assert estimate("trimmed_mean", 100, *[0] * (size - 1), fraction=0.01).decision == pytest.approx(expected)


def test_a_trimmed_mean_drops_the_share_that_it_is_told() -> None:
    assert estimate("trimmed_mean", 1, 2, 3, 100, fraction=0.25).decision == 2.5
    # A fifth of five is one, and not the part of one that binary arithmetic makes of it.
    assert estimate("trimmed_mean", 1, 2, 3, 4, 100, fraction=0.2).decision == 3.0


def test_whoever_was_trimmed_away_dissents() -> None:
    outcome = estimate("trimmed_mean", 1, 2, 3, 100, fraction=0.25)
    assert [(p.answer, p.agents) for p in outcome.dissent.positions] == [
        ("below 2", ("archon-1",)),
        ("above 3", ("archon-4",)),
    ]


def test_mean_odds_are_the_geometric_mean_of_odds() -> None:
    # Odds of 1/3 and 27 have the mean 3.
    assert estimate("mean_odds", 0.25, 27 / 28).decision == pytest.approx(0.75)
    assert estimate("mean_odds", 0.9, 0.5, 0.1).decision == 0.5


@given(st.lists(PROBABILITIES, min_size=1, max_size=20))
def test_mean_odds_are_those_of_logarithms(numbers: list[float]) -> None:
    mean = math.fsum(math.log(p / (1 - p)) for p in numbers) / len(numbers)
    assert estimate("mean_odds", *numbers).decision == pytest.approx(1 / (1 + math.exp(-mean)))


@given(st.lists(PROBABILITIES, min_size=1, max_size=20))
def test_mean_odds_of_the_opposite_are_the_opposite(numbers: list[float]) -> None:
    decision = estimate("mean_odds", *numbers).decision
    opposite = estimate("mean_odds", *[float(1 - Fraction(repr(p))) for p in numbers]).decision
    assert decision == pytest.approx(1 - float(str(opposite)))


def test_one_who_is_certain_makes_mean_odds_certain() -> None:
    assert estimate("mean_odds", 0.0, 0.5, 0.9).decision == 0.0
    assert estimate("mean_odds", 1.0, 0.5, 0.9).decision == 1.0


def test_of_two_opposite_certainties_there_is_no_mean() -> None:
    assert estimate("mean_odds", 0.0, 1.0, 0.5).status is OutcomeStatus.NO_MAJORITY


def test_the_smallest_probability_has_odds() -> None:
    assert estimate("mean_odds", 5e-324, 5e-324).decision == 5e-324


def test_a_weighted_median_has_as_much_confidence_on_both_sides() -> None:
    assert sure("median", (1, 0.1), (2, 0.2), (9, 0.9)).decision == 9.0
    assert sure("median", (1, 0.5), (2, 0.2), (9, 0.3)).decision == 1.5


def test_a_weighted_mean_counts_confidence() -> None:
    assert sure("trimmed_mean", (0, 0.25), (4, 0.75)).decision == 3.0
    assert sure("mean_odds", (0.5, 0.0), (0.2, 0.4)).decision == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["median", "trimmed_mean", "mean_odds"])
def test_nobody_who_is_sure_of_a_number_decides_nothing(kind: str) -> None:
    assert sure(kind, (0.5, 0.0)).status is OutcomeStatus.NO_MAJORITY
    assert estimate(kind).status is OutcomeStatus.NO_MAJORITY


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.sampled_from(["median", "trimmed_mean"]))
def test_what_is_decided_lies_within_what_was_said(numbers: list[float], kind: str) -> None:
    decision = estimate(kind, *numbers).decision
    assert isinstance(decision, float)
    assert min(numbers) <= decision <= max(numbers)
