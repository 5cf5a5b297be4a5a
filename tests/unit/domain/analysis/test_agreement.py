"""Agreement against closed forms."""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.analysis.agreement import category_correlation, estimate_correlation, pair_agreement


def two(yes: int, no: int) -> Mapping[Hashable, int]:
    return {"yes": yes, "no": no}


def test_a_pair_agrees_as_often_as_counting_all_pairs_says() -> None:
    # Of the 10 pairs of 5, three yes agree in 3 and two no in 1.
    assert pair_agreement([3, 2]) == pytest.approx(0.4)


def test_one_agent_is_no_pair() -> None:
    assert pair_agreement([1]) is None


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda counts: sum(counts) > 1))
def test_pair_agreement_is_what_listing_every_pair_gives(counts: list[int]) -> None:
    people = [place for place, count in enumerate(counts) for _ in range(count)]
    pairs = [(a, b) for a in range(len(people)) for b in range(len(people)) if a != b]
    found = sum(people[a] == people[b] for a, b in pairs) / len(pairs)
    assert pair_agreement(counts) == pytest.approx(found)


def test_agents_that_always_agree_while_their_answer_changes_are_wholly_correlated() -> None:
    questions = [two(10, 0), two(0, 10)] * 20
    found = category_correlation([(2, questions)])
    assert found is not None
    assert found.value == pytest.approx(1)


def test_agents_that_split_in_the_same_way_each_time_have_the_correlation_of_the_closed_form() -> None:
    # Six of ten yes, always: within (30 + 12) / 90, by chance 0.52 from one question to another.
    found = category_correlation([(2, [two(6, 4)] * 20)])
    assert found is not None
    assert found.value == pytest.approx((42 / 90 - 0.52) / (1 - 0.52))


def test_chance_is_what_agents_agree_on_who_were_asked_different_questions() -> None:
    # Within (56 + 2) / 90. Of the 380 pairs of questions 180 are alike, with 0.68, and 200 are opposite, with 0.32.
    found = category_correlation([(2, [*[two(8, 2)] * 10, *[two(2, 8)] * 10])])
    chance = (180 * 0.68 + 200 * 0.32) / 380
    assert found is not None
    assert found.value == pytest.approx((58 / 90 - chance) / (1 - chance))


def test_the_correlation_of_few_questions_takes_equal_chances() -> None:
    found = category_correlation([(4, [{"a": 3, "b": 1}, {"c": 4}])])
    assert found is not None
    assert found.value == pytest.approx((0.5 + 1 - 2 / 4) / (2 - 2 / 4))


def test_what_everyone_always_says_says_nothing_of_a_correlation() -> None:
    assert category_correlation([(2, [two(10, 0)] * 20)]) is None


def test_one_question_gives_no_correlation() -> None:
    assert category_correlation([(2, [two(5, 5)])]) is None


def test_the_interval_of_independent_agents_holds_zero_and_is_narrow() -> None:
    draw = random.Random(7)
    questions = [two(yes := sum(draw.random() < 0.7 for _ in range(72)), 72 - yes) for _ in range(200)]
    found = category_correlation([(2, questions)])
    assert found is not None
    assert found.low <= 0 <= found.high
    assert found.high - found.low < 0.02


def test_the_order_of_questions_does_not_matter() -> None:
    draw = random.Random(3)
    questions = [two(yes := draw.randrange(1, 10), 10 - yes) for _ in range(30)]
    one, other = category_correlation([(2, questions)]), category_correlation([(2, questions[::-1])])
    assert one is not None
    assert other is not None
    assert (one.value, one.low) == pytest.approx((other.value, other.low))


def test_estimates_that_are_one_number_a_question_are_wholly_correlated() -> None:
    found = estimate_correlation([[float(number)] * 5 for number in range(10)])
    assert found is not None
    assert found.value == pytest.approx(1)


def test_estimates_have_the_intraclass_correlation_of_the_analysis_of_variance() -> None:
    # Means 2, 6 and 4, deviations of 1 each way: between 2 * 8 / 2, within 6 / 3.
    found = estimate_correlation([[1.0, 3.0], [5.0, 7.0], [3.0, 5.0]])
    assert found is not None
    assert found.value == pytest.approx((8 - 2) / (8 + 2))


def test_estimates_without_any_variation_have_no_correlation() -> None:
    assert estimate_correlation([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]) is None
