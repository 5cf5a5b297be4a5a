"""Holds the desk to its routes, prices and forecasts, and to leave that is asked for, given back and told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Sampling, Usage
from domain.models.money import Price
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.allowance import Allowance
from infrastructure.orchestrators.breaker import Breaker, BreakerState
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.prices import PriceList
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_limiter import ProviderLimiter
from infrastructure.orchestrators.provider_settings import ModelLimits, ProviderSettings
from infrastructure.orchestrators.token_estimate import most_tokens

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no"))
PRICE = Price(150_000, 600_000)
OPENAI = ProviderSettings("openai", "https://api.openai.com/v1", models=("small", "team/large"))
LOCAL = ProviderSettings("local", "http://127.0.0.1:8080/v1")
NAMELESS = ProviderSettings("", "http://127.0.0.1:8080/v1")


class FakeClient:
    """Answers at once, or as it is told; writes requests as the real one does."""

    def __init__(self, settings: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> None:
        self.host = settings.name or "host.example"
        self.asked: list[str] = []
        self.lookups = 0
        self.bodies = 0
        self.closed = False
        self.models = ["first", "second"]
        self.answered_as: str | None = None
        self.error: AgentInvocationError | None = None
        self.facts: ReplyFacts | None = None
        self._heard = heard
        self._writer = ChatRequestWriter()

    def prompt_of(self, request: AgentRequest) -> str:
        return self._writer.prompt(request)

    def body_of(self, request: AgentRequest, *, model: str) -> bytes:
        self.bodies += 1
        return self._writer.write(request, model=model, dialect=Dialect())

    async def complete(self, request: AgentRequest, *, model: str) -> AgentOutput:
        self.asked.append(model)
        await asyncio.sleep(0)
        if self.facts is not None:
            self._heard(model, self.facts)
        if self.error is not None:
            raise self.error
        usage = Usage(1, 100, 20)
        return AgentOutput(request.agent_id, request.request_id, "yes", model=self.answered_as or model, usage=usage)

    async def find_models(self) -> list[str]:
        self.lookups += 1
        return self.models

    async def close(self) -> None:
        self.closed = True


class Desk:
    """A desk over fake clients, with what is behind it."""

    def __init__(self, *providers: ProviderSettings, prices: Mapping[str, Price] | None = None, **more: Any) -> None:
        self.clients: dict[str, FakeClient] = {}
        self.limiters: dict[str, ProviderLimiter] = {}
        self.breakers: dict[str, Breaker] = {}
        self.desk = ProviderDesk(
            providers or (OPENAI, LOCAL),
            client_of=self._client,
            limiter_of=self._limiter,
            breaker_of=self._breaker,
            prices=PriceList(prices, look_up=lambda *_: None),
            **more,
        )

    def _client(self, settings: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> FakeClient:
        return self.clients.setdefault(settings.name, FakeClient(settings, heard))

    def _limiter(self, name: str, allowance: Allowance) -> ProviderLimiter:
        return self.limiters.setdefault(name, ProviderLimiter(name, allowance))

    def _breaker(self, name: str) -> Breaker:
        return self.breakers.setdefault(name, Breaker(name))

    async def call(self, request: AgentRequest, *, until: float | None = None) -> AgentOutput:
        """One call as the fan-out makes it."""
        permit = await self.desk.admit(request, self.desk.foresee(request), until=until)
        try:
            output = await self.desk.invoke(request)
        except AgentInvocationError as error:
            permit.end(error.usage, error)
            raise
        permit.end(output.usage)
        return output


CONTEXT = ContextBundle("t", "Should the city centre be closed to private cars?", "Trams run every ten minutes.")


def asking(model: str | None = "openai/small", **more: Any) -> AgentRequest:
    return AgentRequest("archon-1", CONTEXT, model=model, expected=CHOICE, persona="A baker.", batch_id="b", **more)


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
    assert desk.has_price("dear")
    assert not desk.has_price("half")
    assert not desk.has_price(None)
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


async def test_a_call_in_flight_holds_a_place_of_its_model_and_of_its_provider() -> None:
    desk = Desk(replace(OPENAI, requests_per_minute=100))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    assert {name: limiter.state.in_flight for name, limiter in desk.limiters.items()} == {
        "openai": 1,
        "openai/small": 1,
    }
    permit.end(Usage(1, 10, 1))
    permit.end(Usage(1, 10, 1))
    assert {limiter.state.in_flight for limiter in desk.limiters.values()} == {0}
    assert desk.limiters["openai"].state.tokens == 11


async def test_a_provider_that_binds_nothing_more_than_the_slots_has_no_limiter_of_its_own() -> None:
    desk = Desk(OPENAI, slots=72)
    await desk.call(asking())
    assert set(desk.limiters) == {"openai/small"}


async def test_the_limits_of_one_model_bind_that_model_alone() -> None:
    desk = Desk(limits={"openai/small": ModelLimits(requests_per_minute=1)})
    await desk.call(asking())
    soon = asyncio.get_running_loop().time() + 1
    with pytest.raises(AgentInvocationError) as caught:
        await desk.call(asking(), until=soon)
    assert (caught.value.kind, caught.value.state) == ("throttled", AgentState.THROTTLED)
    await desk.call(asking("openai/team/large"), until=soon)


async def test_who_waits_for_the_provider_in_vain_gives_the_models_place_back() -> None:
    desk = Desk(replace(OPENAI, requests_per_minute=1))
    await desk.call(asking())
    with pytest.raises(AgentInvocationError):
        await desk.call(asking(), until=asyncio.get_running_loop().time() + 1)
    assert desk.limiters["openai/small"].state.in_flight == 0


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking("openai/team/large")))
    for _ in range(3):
        await asyncio.sleep(0)
    assert desk.limiters["openai"].state.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (desk.limiters["openai"].state.waiting, desk.limiters["openai/team/large"].state.in_flight) == (0, 0)
    permit.end(Usage(1, 1, 1))
    await desk.call(asking("openai/team/large"))


async def test_a_refusal_as_too_fast_slows_its_model_down_for_everybody() -> None:
    desk = Desk()
    desk.clients["openai"].error = AgentInvocationError(
        "slower", kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=30.0, usage=Usage()
    )
    with pytest.raises(AgentInvocationError):
        await desk.call(asking())
    state = desk.limiters["openai/small"].state
    assert state.pace < 1
    assert 25 < state.paused_s <= 30
    assert desk.breakers["openai/small"].state is BreakerState.CLOSED


async def test_what_a_reply_says_of_the_pace_reaches_the_limiter_with_its_own_call() -> None:
    desk = Desk()
    desk.clients["openai"].facts = ReplyFacts(
        200, None, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    )
    await desk.call(asking())
    with pytest.raises(AgentInvocationError, match="may not be asked"):
        await desk.call(asking(), until=asyncio.get_running_loop().time() + 20)
    await desk.call(asking("openai/team/large"), until=asyncio.get_running_loop().time() + 20)


async def test_a_model_that_keeps_failing_is_not_asked_for_a_while() -> None:
    desk = Desk()
    desk.clients["openai"].error = AgentInvocationError("gone", kind="connect_failed", retryable=True, usage=Usage())
    for _ in range(5):
        with pytest.raises(AgentInvocationError, match="gone"):
            await desk.call(asking())
    with pytest.raises(AgentInvocationError, match="connect_failed") as caught:
        await desk.call(asking())
    assert (caught.value.kind, caught.value.state, caught.value.usage) == ("breaker_open", AgentState.FAILED, Usage())
    assert len(desk.clients["openai"].asked) == 5
    assert desk.limiters["openai/small"].state.in_flight == 0
    views = {view.name: view for view in desk.desk.views()}
    assert views["openai/small"].breaker.state is BreakerState.OPEN


async def test_who_waited_while_the_breaker_opened_is_not_let_through() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking()))
    for _ in range(3):
        await asyncio.sleep(0)
    permit.end(Usage(), AgentInvocationError("no", kind="unauthorised", usage=Usage()))
    with pytest.raises(AgentInvocationError) as caught:
        await waiting
    assert caught.value.kind == "breaker_open"
    assert {limiter.state.in_flight for limiter in desk.limiters.values()} == {0}


async def test_a_call_that_was_never_made_proves_nothing() -> None:
    now = 0.0
    desk = Desk(LOCAL)
    breaker = desk.breakers["local/x"] = Breaker("local/x", clock=lambda: now)
    request = asking("local/x")
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    permit.end(Usage(), AgentInvocationError("no", kind="unauthorised", usage=Usage()))
    now = 1000.0
    probe = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    probe.end(Usage())
    assert breaker.is_open
    probe = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    probe.end(None)
    assert breaker.is_open
    await desk.call(request)
    assert not breaker.is_open


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


async def test_models_named_by_callers_do_not_fill_the_memory() -> None:
    desk = Desk(NAMELESS, slots=72)
    for number in range(1200):
        await desk.call(asking(f"model-{number}"))
    assert sum(1 for _ in desk.desk.views()) <= 512


async def test_a_closed_desk_refuses_who_waits_and_drops_the_connections() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking()))
    for _ in range(3):
        await asyncio.sleep(0)
    await desk.desk.close()
    with pytest.raises(AgentInvocationError) as caught:
        await waiting
    assert caught.value.kind == "closed"
    assert desk.clients["openai"].closed
    await desk.desk.close()


async def test_without_leave_a_call_is_made_all_the_same() -> None:
    assert (await Desk().desk.invoke(asking())).content == "yes"


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
