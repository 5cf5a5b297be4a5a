"""The purse of a deliberation: whatever is held and settled in whatever order, its limits are not passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.budget import Limits
from domain.models.money import Hold, Price, picodollars, usd
from domain.models.purse import Purse

_HOLDS = st.builds(Hold, st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60)))


@given(st.lists(st.tuples(_HOLDS, st.floats(0, 1), st.integers(0, 5)), max_size=40))
def test_what_is_spent_and_held_never_exceeds_the_limits(calls: list[tuple[Hold, float, int]]) -> None:
    purse = Purse(Limits(max_total_tokens=200, max_cost_usd=usd(150)))
    held: list[tuple[Hold, float]] = []
    for hold, share, settled in calls:
        is_lacking = purse.lacks(hold) is not None
        assert (purse.try_hold(hold) is not None) is is_lacking
        if not is_lacking:
            held.append((hold, share))
        for _ in range(min(settled, len(held))):
            kept, taken = held.pop(0)
            purse.settle(kept, tokens=int(kept.tokens * taken), cost=int((kept.cost or 0) * taken))
        assert purse.tokens_used <= 200
        assert purse.cost_used <= 150
        assert purse.calls_held == len(held)


def test_a_call_that_fits_to_the_last_token_is_made_and_one_more_is_not() -> None:
    purse = Purse(Limits(max_total_tokens=10), tokens_spent=4)
    purse.try_hold(Hold(6, 0))
    refusal = purse.try_hold(Hold(1, 0))
    assert refusal is not None
    assert (refusal.budget, refusal.limit, refusal.used, refusal.wanted) == ("max_total_tokens", 10, 10, 1)


def test_a_model_without_a_price_is_held_to_its_tokens_alone() -> None:
    purse = Purse(Limits(max_total_tokens=10, max_cost_usd=0))
    purse.try_hold(Hold(10, None))
    assert purse.cost_used == 0


def test_what_a_provider_counts_beyond_the_hold_is_spent_all_the_same() -> None:
    purse = Purse(Limits(max_total_tokens=10))
    purse.try_hold(Hold(5, 5))
    purse.settle(Hold(5, 5), tokens=9, cost=7)
    assert (purse.tokens_used, purse.cost_used) == (9, 7)
    assert purse.lacks(Hold(2, 0)) is not None


def test_at_best_is_as_if_all_that_is_held_were_given_back() -> None:
    purse = Purse(Limits(max_total_tokens=10), tokens_spent=2)
    purse.try_hold(Hold(8, 0))
    assert purse.lacks(Hold(8, 0)) is not None
    assert purse.lacks(Hold(8, 0), at_best=True) is None
    assert purse.lacks(Hold(9, 0), at_best=True) is not None


@pytest.mark.parametrize(
    ("dollars", "expected"), [(0.15, 150_000_000_000), (5.0, 5 * 10**12), (0.1 + 0.2, 300_000_000_000 + 1), (0, 0)]
)
def test_dollars_are_whole_picodollars_rounded_up(dollars: float, expected: int) -> None:
    assert picodollars(dollars) == expected


@given(st.integers(0, 10**15))
def test_an_amount_of_up_to_a_thousand_dollars_comes_back_as_it_was(amount: int) -> None:
    assert picodollars(usd(amount)) == amount


def test_a_price_a_million_is_exact_for_each_token() -> None:
    price = Price.per_million(input_usd=0.15, output_usd=0.6)
    assert price.of(1_000_000, 0) == picodollars(0.15)
    assert price.of(3, 7) == 3 * 150_000 + 7 * 600_000
