"""What costs nobody knows is said as that, and never as nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api.dashboard.chamber_state import ChamberState
from api.dashboard.costs import cost_of_item, cost_of_usage, has_unknown_price, uncertain_of_item
from application.ports.model_desk import ModelDesk, NullModelDesk
from application.ports.usage_reader import UsageItem
from domain.models.budget import Limits, Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Price
from tests.deliberation_specimens import NOON
from tests.model_desk_double import PricedDesk
from tests.service_fixture import specification

FREE, PRICED, UNPRICED = Price(0, 0), Price.per_million(input_usd=1, output_usd=2), None


def asked(*, simulated: bool = False) -> Deliberation:
    """A deliberation of three agents that name no model."""
    return Deliberation.accept(specification(3), at=NOON, orchestrator="openai", simulated=simulated, key_name=None)


@pytest.mark.parametrize(
    ("desk", "unknown"),
    [
        (NullModelDesk(), False),
        (PricedDesk({None: PRICED}), False),
        (PricedDesk({None: FREE}), False),
        (PricedDesk({None: UNPRICED}), True),
        (PricedDesk({}), True),
    ],
)
def test_a_price_is_unknown_where_the_desk_has_none(desk: ModelDesk, unknown: bool) -> None:
    assert has_unknown_price(asked(), desk) is unknown


def test_what_falls_back_on_a_model_without_a_price_has_none_either() -> None:
    desk = PricedDesk({"small": PRICED, "own": UNPRICED}, routes={"": ["small", "own"]})
    assert has_unknown_price(asked(), desk)


def test_what_is_simulated_costs_nothing_whatever_the_desk_knows() -> None:
    assert not has_unknown_price(asked(simulated=True), PricedDesk({None: UNPRICED}))


@pytest.mark.parametrize(
    ("cost", "is_unpriced", "words"),
    [
        (0.0, False, "$0.00 of $5.00"),
        (0.0, True, "not known"),
        (0.42, False, "$0.42 of $5.00"),
        (0.0042, False, "$0.0042 of $5.00"),
        (0.42, True, "$0.42 of $5.00, and what is not known"),
    ],
)
def test_the_chamber_says_of_a_cost_what_the_quote_says(cost: float, is_unpriced: bool, words: str) -> None:
    assert cost_of_usage(Usage(3, 10, 5, cost), Limits(), is_unpriced=is_unpriced) == words


def test_the_chamber_of_a_model_without_a_price_names_no_sum() -> None:
    state = ChamberState(replace(asked(), id="d-1"), is_unpriced=True)
    assert state.shown.texts["cost"] == "not known"


@pytest.mark.parametrize(
    ("calls", "unpriced", "cost", "words"),
    [
        (3, 0, 0.0, "$0.00"),
        (3, 0, 1.5, "$1.50"),
        (3, 3, 0.0, "not known"),
        (3, 1, 1.5, "$1.50, and of 1 call not known"),
        (3, 2, 0.0, "$0.00, and of 2 calls not known"),
    ],
)
def test_a_sum_says_of_how_many_calls_it_knows_nothing(calls: int, unpriced: int, cost: float, words: str) -> None:
    assert cost_of_item(UsageItem("k", calls, 1, 1, cost, 0.0, unpriced_calls=unpriced)) == words


@pytest.mark.parametrize(
    ("tokens", "usd", "words"),
    [(0, 0.0, ""), (34_995, 0.25, "+ $0.25 uncertain"), (34_995, 0.0, "+ 34,995 tokens uncertain")],
)
def test_what_is_uncertain_of_a_sum_is_money_or_tokens_whose_price_nobody_knows(
    tokens: int, usd: float, words: str
) -> None:
    assert uncertain_of_item(UsageItem("small", 1, 0, 0, 0.0, usd, uncertain_tokens=tokens)) == words
