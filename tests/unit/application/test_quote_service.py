"""Holds quotes to what would really be asked: every attempt at every model at most, one call an agent expected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from application.ports.model_desk import ModelDesk, NullModelDesk
from application.services.quote_service import TYPICAL_EXCESS, TYPICAL_OUTPUT_TOKENS, Amount, QuoteService
from domain.errors.agent import AgentInvocationError
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits, Sampling
from domain.models.deliberation import Specification
from domain.models.money import KeyBudget, Price
from tests.deliberation_specimens import specification
from tests.model_desk_double import PricedDesk

_DOLLAR_A_MILLION = Price.per_million(input_usd=1, output_usd=4)
_FREE = Price(0, 0)
# Of a prompt for which 1,000 tokens are held.
_READ = 1_000 / TYPICAL_EXCESS
_ROOMY = Limits(max_total_tokens=10**9)


def asking(
    models: Sequence[str | None], *, limits: Limits = _ROOMY, name: str = "", output: int = 1_000
) -> Specification:
    agents = [Agent(f"archon-{number}", Persona("Wise."), model) for number, model in enumerate(models)]
    return replace(
        specification(),
        roster=Roster.assemble(name, agents),
        limits=limits,
        sampling=Sampling(max_output_tokens=output),
    )


def test_expected_is_one_call_an_agent_and_at_most_is_every_attempt_with_all_that_it_may_hold() -> None:
    desk = PricedDesk({"p/m": _DOLLAR_A_MILLION})
    quote = QuoteService(desk=desk).quote(asking(["p/m"] * 3, limits=replace(_ROOMY, max_attempts=2)))
    assert quote.calls == Amount(3, 6)
    assert quote.tokens == Amount(3 * (_READ + TYPICAL_OUTPUT_TOKENS), 6 * 2_000)
    assert quote.cost_usd == Amount(3 * (_READ + 4 * TYPICAL_OUTPUT_TOKENS) / 10**6, 6 * 5_000 / 10**6)
    assert quote.notices == ()


def test_a_route_counts_every_model_at_most_and_the_first_alone_as_expected() -> None:
    prices: dict[str | None, Price | None] = {
        "p/dear": Price.per_million(input_usd=10, output_usd=10),
        "p/cheap": _DOLLAR_A_MILLION,
    }
    desk = PricedDesk(prices, routes={"default": ["p/dear", "p/cheap"]})
    quote = QuoteService(desk=desk).quote(asking(["default"], limits=replace(_ROOMY, max_attempts=3)))
    assert quote.calls == Amount(1, 6)
    assert quote.tokens.at_most == 6 * 2_000
    assert quote.cost_usd.expected == pytest.approx(10 * (_READ + TYPICAL_OUTPUT_TOKENS) / 10**6)
    assert quote.cost_usd.at_most == pytest.approx(3 * (20_000 + 5_000) / 10**6)


def test_an_answer_that_may_be_short_is_not_expected_to_be_longer() -> None:
    quote = QuoteService(desk=PricedDesk({"p/m": _FREE})).quote(asking(["p/m"], output=20))
    assert quote.tokens == Amount(_READ + 20, 2 * 1_020)


def test_no_quote_exceeds_the_limits_of_the_request() -> None:
    limits = Limits(max_total_tokens=2_500, max_cost_usd=0.001)
    quote = QuoteService(desk=PricedDesk({"p/m": _DOLLAR_A_MILLION})).quote(asking(["p/m"] * 5, limits=limits))
    # Money is what ends first: of five calls of a tenth of a cent each there is enough for one.
    assert quote.calls == Amount(1, 10)
    assert quote.tokens == Amount(_READ + TYPICAL_OUTPUT_TOKENS, 2_500)
    assert quote.cost_usd == Amount(0.001, 0.001)
    assert len(quote.notices) == 2
    assert "max_total_tokens is 2500" in quote.notices[0]
    assert "max_cost_usd is 0.001" in quote.notices[1]


@pytest.mark.parametrize("models", [["p/unknown"], ["p/m", "p/unknown"], ["mixed"]])
def test_where_a_price_is_not_known_the_cost_is_not_and_the_quote_says_so(models: list[str]) -> None:
    desk = PricedDesk({"p/m": _DOLLAR_A_MILLION, "p/unknown": None}, routes={"mixed": ["p/m", "p/unknown"]})
    quote = QuoteService(desk=desk).quote(asking(models))
    assert quote.cost_usd == Amount(None, None)
    assert quote.tokens.expected
    assert len(quote.notices) == 1
    assert "'p/unknown'" in quote.notices[0]


def test_without_a_known_price_nothing_is_quoted_where_money_is_limited() -> None:
    desk = PricedDesk({"p/m": _DOLLAR_A_MILLION, "p/unknown": None}, routes={"mixed": ["p/m", "p/unknown"]})
    asked = asking(["p/m", "p/unknown", "mixed"], limits=replace(_ROOMY, max_cost_usd=1.0))
    with pytest.raises(InvalidSpecificationError) as refusal:
        QuoteService(desk=desk).quote(asked)
    assert [problem.pointer for problem in refusal.value.problems] == [
        "/agents/members/1/model",
        "/agents/members/2/model",
    ]
    assert "unknown" not in str(refusal.value)


def test_a_key_with_a_budget_wants_prices_too() -> None:
    quotes = QuoteService(
        desk=PricedDesk({"p/unknown": None}), budgets={"alice": KeyBudget(month=1), "carol": KeyBudget()}
    )
    for key_name in ("bob", "carol", None):
        assert quotes.quote(asking(["p/unknown"]), key_name=key_name).cost_usd == Amount(None, None)
    with pytest.raises(InvalidSpecificationError):
        quotes.quote(asking(["p/unknown"]), key_name="alice")


def test_the_budget_of_everybody_is_that_of_whoever_comes_without_a_key_too() -> None:
    quotes = QuoteService(desk=PricedDesk({"p/unknown": None}), budgets={"*": KeyBudget(day=1)})
    for key_name in ("bob", None):
        with pytest.raises(InvalidSpecificationError):
            quotes.quote(asking(["p/unknown"]), key_name=key_name)


def test_a_desk_that_repeats_nothing_may_say_what_there_is() -> None:
    with pytest.raises(InvalidSpecificationError) as refusal:
        QuoteService(desk=PricedDesk({"p/m": _FREE})).quote(asking(["zzz"]))
    assert refusal.value.problems[0].message == "names no model and no route that is known here"

    class Terse(PricedDesk):
        def route(self, model: str | None) -> Sequence[str | None]:
            raise AgentInvocationError("there is p", kind="unknown_model")

    with pytest.raises(InvalidSpecificationError) as refusal:
        QuoteService(desk=Terse({})).quote(asking(["zzz"]))
    assert refusal.value.problems[0].message == "there is p"


def test_a_model_that_nobody_knows_is_refused_at_the_member_that_names_it_and_not_repeated() -> None:
    with pytest.raises(InvalidSpecificationError) as refusal:
        QuoteService(desk=PricedDesk({"p/m": _FREE})).quote(asking(["p/m", "s3cret/model"]))
    assert [problem.pointer for problem in refusal.value.problems] == ["/agents/members/1/model"]
    assert "s3cret" not in str(refusal.value)


def test_agents_of_a_roster_by_name_are_refused_once_for_all() -> None:
    with pytest.raises(InvalidSpecificationError) as refusal:
        QuoteService(desk=PricedDesk({"p/m": _FREE})).quote(asking(["x", "y", "p/m"], name="wise"))
    assert [problem.pointer for problem in refusal.value.problems] == ["/agents/roster"]


def test_a_desk_that_holds_nothing_quotes_calls_and_no_money() -> None:
    desk: ModelDesk = NullModelDesk()
    quote = QuoteService(desk=desk).quote(asking([None, None]))
    assert (quote.calls, quote.tokens, quote.cost_usd) == (Amount(2, 4), Amount(0, 0), Amount(0.0, 0.0))


def test_every_agent_is_foreseen_with_its_own_words_and_the_key_it_is_asked_by() -> None:
    desk = PricedDesk({"p/m": _FREE})
    asked = asking(["p/m", "p/m"])
    QuoteService(desk=desk).quote(asked, key_name="alice")
    assert {request.agent_id for request in desk.foreseen} == {"archon-0", "archon-1"}
    request = desk.foreseen[-1]
    assert (request.persona, request.key_name, request.expected) == ("Wise.", "alice", asked.question.answer)
    assert request.context.topic_content == asked.question.text
    assert request.context.background == asked.question.context
