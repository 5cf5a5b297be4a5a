"""Holds the desk to its routes, prices and forecasts, and to whose name is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from application.services.price_check import has_price
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Sampling, Usage
from infrastructure.orchestrators.prices import PriceList
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_settings import ProviderSettings
from infrastructure.orchestrators.token_estimate import most_tokens
from tests.unit.infrastructure.faked_desk import (
    CONTEXT,
    LOCAL,
    NAMELESS,
    OPENAI,
    PRICE,
    Desk,
    FakeClient,
    asking,
)


async def test_a_model_is_asked_by_its_own_name_and_recorded_by_its_full_one() -> None:
    desk = Desk(prices={"openai/team/large": PRICE})
    output = await desk.call(asking("openai/team/large"))
    assert desk.clients["openai"].asked == ["team/large"]
    assert output.model == "openai/team/large"


async def test_the_model_that_answered_is_recorded_and_the_one_asked_is_charged() -> None:
    desk = Desk(prices={"openai/small": PRICE})
    desk.clients["openai"].answered_as = "small-2026-01-01"
    output = await desk.call(asking())
    assert output.model == "openai/small-2026-01-01"
    assert output.usage == Usage(1, 100, 20, (100 * 150_000 + 20 * 600_000) / 10**12)


async def test_the_nameless_provider_is_asked_and_recorded_as_today() -> None:
    desk = Desk(NAMELESS, default_model="own")
    assert desk.desk.route("any/thing") == ("any/thing",)
    assert desk.desk.route(None) == ("own",)
    output = await desk.call(asking("any/thing"))
    assert output.model == "any/thing"
    assert desk.clients[""].asked == ["any/thing"]


async def test_the_nameless_provider_is_asked_for_its_first_model_where_nobody_names_one() -> None:
    desk = Desk(NAMELESS)
    assert desk.desk.foresee(asking(None)).model is None
    outputs = await asyncio.gather(*(desk.call(asking(None)) for _ in range(5)))
    assert {output.model for output in outputs} == {"first"}
    assert desk.clients[""].lookups == 1
    assert desk.desk.route(None) == ("first",)


async def test_a_provider_without_models_says_which_setting_to_give() -> None:
    desk = Desk(NAMELESS)
    desk.clients[""].models = []
    with pytest.raises(AgentInvocationError, match="CONCLAVE_LLM_MODEL") as caught:
        await desk.call(asking(None))
    assert caught.value.usage == Usage()


def test_a_route_is_the_models_to_ask_in_order() -> None:
    desk = Desk(routes={"default": ["openai/small", "local/x"]}, default_model="default").desk
    assert desk.route("default") == ("openai/small", "local/x")
    assert desk.route(None) == ("openai/small", "local/x")
    assert desk.route("local/y/z") == ("local/y/z",)


@pytest.mark.parametrize("model", ["small", "nobody/small", "openai/huge", "openai/", "/x", ""])
def test_a_model_that_nobody_offers_is_known_before_it_is_asked(model: str) -> None:
    desk = Desk(routes={"default": ["openai/small"]}).desk
    problem = desk.known(model)
    assert problem is not None
    assert not model or model not in problem
    with pytest.raises(AgentInvocationError) as caught:
        desk.route(model)
    assert (caught.value.kind, caught.value.usage) == ("unknown_model", Usage())


def test_models_routes_and_nothing_are_known() -> None:
    desk = Desk(routes={"default": ["openai/small"]}).desk
    assert [desk.known(model) for model in ("openai/team/large", "local/any", "default", None)] == [None] * 4


def test_a_route_has_a_price_when_all_its_models_have_one() -> None:
    routes = {"dear": ["openai/small", "openai/team/large"], "half": ["openai/small", "local/x"]}
    prices = {"openai/small": PRICE, "openai/team/large": PRICE}
    desk = Desk(prices=prices, routes=routes, default_model="half").desk
    assert has_price(desk, asking("dear"))
    assert not has_price(desk, asking("half"))
    assert not has_price(desk, asking(None))
    assert desk.price_of("local/x") is None


def test_a_forecast_holds_the_whole_prompt_and_all_that_may_be_answered() -> None:
    desk = Desk(prices={"openai/small": PRICE}).desk
    request = asking(sampling=Sampling(max_output_tokens=500))
    forecast = desk.foresee(request)
    assert forecast.model == "openai/small"
    assert forecast.prompt is not None
    assert "A baker." in forecast.prompt
    read = forecast.hold.tokens - 500
    assert most_tokens(forecast.prompt) <= read <= 3 * most_tokens(forecast.prompt)
    assert forecast.hold.cost == PRICE.of(read, 500)
    assert forecast.prompt_version is not None


def test_a_forecast_of_a_model_without_a_price_holds_no_money() -> None:
    assert Desk().desk.foresee(asking("local/x")).hold.cost is None


@pytest.mark.parametrize("persona", ["", "字" * 500, "0123456789abcdef" * 200, '"\\\n' * 300])
def test_a_forecast_is_never_below_the_estimate_of_what_is_sent(persona: str) -> None:
    desk = Desk()
    request = replace(asking(), persona=persona)
    forecast = desk.desk.foresee(request)
    assert forecast.prompt is not None
    assert forecast.hold.tokens - request.sampling.max_output_tokens >= most_tokens(forecast.prompt)


def test_texts_that_differ_are_estimated_apart() -> None:
    desk = Desk().desk
    short = desk.foresee(asking())
    long = desk.foresee(replace(asking(), context=replace(CONTEXT, background="Trams. " * 100)))
    assert long.hold.tokens > short.hold.tokens + 300
    assert desk.foresee(asking()) == short


def test_what_members_share_is_estimated_once() -> None:
    desk = Desk(prices={"openai/small": PRICE})
    for number in range(72):
        desk.desk.foresee(replace(asking(), context=replace(CONTEXT), persona=f"A baker of {number} years."))
    assert desk.clients["openai"].bodies == 1


async def test_what_a_failed_call_took_is_priced_too() -> None:
    desk = Desk(prices={"openai/small": PRICE})
    desk.clients["openai"].error = AgentInvocationError("empty", kind="empty_reply", usage=Usage(1, 100, 0))
    with pytest.raises(AgentInvocationError) as caught:
        await desk.call(asking())
    assert caught.value.usage == Usage(1, 100, 0, 100 * 150_000 / 10**12)


async def test_what_nobody_knows_stays_unknown() -> None:
    desk = Desk(prices={"openai/small": PRICE})
    desk.clients["openai"].error = AgentInvocationError("lost", kind="connection_lost", retryable=True)
    with pytest.raises(AgentInvocationError) as caught:
        await desk.call(asking())
    assert caught.value.usage is None


@pytest.mark.parametrize(
    ("providers", "routes", "looked_up"),
    [
        ((OPENAI,), {}, {"small", "team/large"}),
        ((OPENAI, LOCAL), {"default": ["local/x"]}, {"small", "team/large", "x", ""}),
        ((NAMELESS,), {}, {""}),
    ],
)
def test_prices_are_learnt_before_the_first_call(
    providers: tuple[ProviderSettings, ...], routes: dict[str, list[str]], looked_up: set[str]
) -> None:
    found: set[str] = set()

    def look_up(base_url: str, model: str, day: object) -> None:
        found.add(model)

    clients = [FakeClient(settings, lambda *_: None) for settings in providers]
    prices = PriceList(look_up=look_up)
    desk = ProviderDesk(providers, client_of=lambda *_: clients[0], prices=prices, routes=routes)
    desk.learn_prices()
    assert found == looked_up
