"""What calls took, added up: sums of money are those of its decimals, not of the floats nearest to them."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import pytest

from domain.models.budget import Usage
from domain.models.money import usd


def _sum(*dollars: float) -> Usage:
    return reduce(add, [Usage(1, cost_usd=each, uncertain_usd=each) for each in dollars], Usage())


@pytest.mark.parametrize(
    ("dollars", "shown"),
    [([0.00105] * 20, "0.021"), ([0.1, 0.2], "0.3"), ([0.1] * 10, "1.0"), ([0.000000000001] * 3, "3e-12")],
)
def test_a_sum_of_money_is_shown_as_the_shortest_decimal_of_the_exact_sum(dollars: list[float], shown: str) -> None:
    total = _sum(*dollars)
    assert (repr(total.cost_usd), repr(total.uncertain_usd)) == (shown, shown)


def test_sums_of_whole_picodollars_are_the_same_in_any_order() -> None:
    amounts = [usd(each) for each in (1, 999_999_999_999, 8_000_000_000_000_001, 3, 123_456_789_012)]
    exact = usd(1 + 999_999_999_999 + 8_000_000_000_000_001 + 3 + 123_456_789_012)
    assert _sum(*amounts).cost_usd == _sum(*reversed(amounts)).cost_usd == exact


def test_nothing_added_leaves_an_amount_as_it_was_recorded() -> None:
    recorded = Usage(20, 5, 6, 0.020999999999999998, 7, 0.30000000000000004)
    assert Usage() + recorded == recorded + Usage() == recorded


def test_amounts_that_are_no_numbers_can_be_added_all_the_same() -> None:
    assert _sum(1.0, math.inf).cost_usd == math.inf
    assert math.isnan(_sum(math.inf, -math.inf).cost_usd)
