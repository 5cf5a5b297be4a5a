"""Asks the models of several providers by name: routes, prices and forecasts, and for each model a limiter and a breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, Permit
from application.ports.provider_standing import ProviderStanding
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.money import Hold, Price, usd
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.allowance import Allowance, LimiterState
from infrastructure.orchestrators.asked_model import (
    AskedModel,
    AskedProvider,
    CallPermit,
    Client,
    ModelView,
    hear,
    present_permit,
)
from infrastructure.orchestrators.breaker import Breaker, Passage
from infrastructure.orchestrators.first_model import FirstModel
from infrastructure.orchestrators.prices import PriceList
from infrastructure.orchestrators.prompt_estimates import PromptEstimates
from infrastructure.orchestrators.prompt_version import prompt_version
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_limiter import Place, ProviderLimiter
from infrastructure.orchestrators.provider_settings import ModelLimits, ProviderSettings
from infrastructure.orchestrators.standings import standing_of, with_breaker
from infrastructure.orchestrators.token_estimate import TOKENS_A_CALL, most_tokens

__all__ = ["ProviderDesk"]

_MAX_MODELS = 512

ClientMaker = Callable[[ProviderSettings, Callable[[str, ReplyFacts], None]], Client]
LimiterMaker = Callable[[str, Allowance], ProviderLimiter]


class ProviderDesk:
    """Every call to a model goes over here: it is priced, held back to what its provider takes, and made.

    Models are named `provider/model`. A single provider without a name (`CONCLAVE_LLM_BASE_URL`) is asked for models as they are
    named. What a model is asked and answers is left to the clients. Of one event loop.
    """

    paces = True

    def __init__(
        self,
        providers: Sequence[ProviderSettings],
        *,
        client_of: ClientMaker,
        prices: PriceList | None = None,
        routes: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, ModelLimits] | None = None,
        default_model: str | None = None,
        slots: int | None = None,
        limiter_of: LimiterMaker = ProviderLimiter,
        breaker_of: Callable[[str], Breaker] = Breaker,
    ) -> None:
        """`default_model` is a model or a route, for members that name none; without it the nameless provider's first is asked.

        `slots` is how many calls there can be at once in all. `client_of` makes the client of a provider, given whom to tell of its
        replies. Connects nowhere.
        """
        self._prices = prices if prices is not None else PriceList()
        self._routes = {name: tuple(models) for name, models in (routes or {}).items()}
        self._limits = dict(limits or {})
        self._default = default_model
        self._slots = slots
        self._limiter_of = limiter_of
        self._breaker_of = breaker_of
        self._models: dict[str | None, AskedModel] = {}
        self._permits: dict[UUID, CallPermit] = {}
        self._estimates = PromptEstimates()
        self._providers = {settings.name: self._provider(settings, client_of(settings, hear)) for settings in providers}
        self._nameless = self._providers.get("")
        self._first_model = FirstModel(self._look_up_model)
        self._found_model: str | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Refuse who waits, and drop all connections. May be called twice."""
        await self._first_model.close()
        limiters = [model.limiter for model in self._models.values()]
        limiters += [provider.limiter for provider in self._providers.values() if provider.limiter is not None]
        await asyncio.gather(*(limiter.close() for limiter in limiters))
        await asyncio.gather(*(provider.client.close() for provider in self._providers.values()))

    def known(self, model: str | None) -> str | None:
        """What keeps a member from naming this model or route, None where nothing does. Does not repeat it."""
        if model is None or self._nameless is not None or model in self._routes:
            return None
        provider, slash, name = model.partition("/")
        there = self._providers.get(provider)
        if not slash or not name or there is None:
            return f"is neither provider/model nor a route; there is {', '.join([*self._routes, *self._providers])}"
        offered = there.settings.models
        if offered and name not in offered:
            return f"is no model of {provider}; there is {', '.join(offered)}"
        return None

    def price_of(self, model: str | None) -> Price | None:
        """What the model of that full name takes, None where nobody knows. Raises `AgentInvocationError` for an unknown one."""
        provider, name = self._split(model)
        if name is None:
            return None
        return self._prices.price(provider.full_name(name), base_url=provider.settings.base_url, model=name)

    def learn_prices(self) -> None:
        """Look up what is known by name, so that no call waits for the list. Takes half a second; another thread may do it."""
        names = {model for models in self._routes.values() for model in models}
        for provider in self._providers.values():
            names.update(map(provider.full_name, provider.settings.models))
            if not provider.settings.models:
                self._prices.price("", base_url=provider.settings.base_url, model="")
        for name in names:
            self.price_of(name)

    def route(self, model: str | None) -> Sequence[str | None]:
        """The models of the route of that name, or that model alone. Raises `AgentInvocationError` of kind `unknown_model`."""
        if model is None:
            model = self._own_model
        problem = self.known(model)
        if problem is not None:
            raise _unknown(problem)
        return self._routes.get(model or "", (model,))

    def prompt_of(self, request: AgentRequest) -> str:
        """What the agent is told, as one text, so that it can be committed to before the call."""
        return self._split(request.model)[0].client.prompt_of(request)

    def foresee(self, request: AgentRequest) -> Forecast:
        """The call of this request. Holds what the prompt takes at most by `most_tokens`, and all that may be answered.

        Raises `AgentInvocationError` of kind `unknown_model`.
        """
        provider, name = self._split(request.model)
        written = request.sampling.max_output_tokens
        read = self._estimates.tokens(provider, request)
        full_name = None if name is None else provider.full_name(name)
        price = self.price_of(request.model)
        cost = None if price is None else price.of(read, written)
        prompt = provider.client.prompt_of(request)
        return Forecast(full_name, prompt, Hold(read + written, cost), prompt_version())

    async def admit(self, request: AgentRequest, forecast: Forecast, *, until: float | None) -> Permit:
        """Leave of the model's limiter, of its provider's, and of its breaker."""
        model = self._model(request.model)
        permit = await self._admitted(
            model,
            forecast,
            request_id=request.request_id,
            group=request.key_name or "",
            batch=request.batch_id,
            until=until,
        )
        self._permits[request.request_id] = permit
        return permit

    def foresee_embedding(self, model: str, texts: Sequence[str]) -> Forecast:
        """The call that gives these texts vectors by the model of that full name; nothing is written for it but numbers.

        Raises `AgentInvocationError` of kind `unknown_model`.
        """
        read = sum(map(most_tokens, texts)) + TOKENS_A_CALL
        price = self.price_of(model)
        return Forecast(model, None, Hold(read, None if price is None else price.of(read, 0)))

    async def admit_embedding(
        self, model: str, forecast: Forecast, *, key_name: str | None, batch_id: str, until: float | None
    ) -> CallPermit:
        """As `admit`, in one line with the calls of agents; the call itself is made by whoever asks."""
        return await self._admitted(
            self._model(model), forecast, request_id=uuid4(), group=key_name or "", batch=batch_id, until=until
        )

    async def _admitted(
        self, model: AskedModel, forecast: Forecast, *, request_id: UUID, group: str, batch: str, until: float | None
    ) -> CallPermit:
        if not model.breaker.would_let_pass():
            raise _held_back(model)
        places: list[Place] = []
        try:
            for limiter, reply_bytes in ((model.limiter, 0), (model.provider.limiter, self._reply_bytes(model))):
                if limiter is not None:
                    place = await limiter.enter(
                        forecast.hold.tokens,
                        group=group,
                        batch=batch,
                        until=until,
                        reply_bytes=reply_bytes,
                    )
                    places.append(place)
            # Only now, so that nobody waits as the one call that tries whether a model is back.
            passage = _enter(model)
        except BaseException:
            for place in places:
                place.withdraw()
            raise
        return CallPermit(request_id, places, passage, self._forget)

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The output of that agent, its usage priced, its model named as `provider/model`. Raises `AgentInvocationError`."""
        provider, name = self._split(request.model)
        permit = self._permits.get(request.request_id)
        token = present_permit.set(permit)
        try:
            if name is None:
                name = self._found_model = await self._first_model.get()
            if permit is not None:
                permit.sent()
            price = self._prices.price(provider.full_name(name), base_url=provider.settings.base_url, model=name)
            output = await provider.client.complete(request, model=name)
        except AgentInvocationError as error:
            error.agent_id = request.agent_id
            if error.usage is not None and error.usage.total_tokens:
                error.usage = _priced(error.usage, price)
            raise
        finally:
            present_permit.reset(token)
        output.usage = _priced(output.usage, price)
        output.model = provider.full_name(output.model or name)
        return output

    def views(self) -> Iterator[ModelView]:
        """How each model stands that was asked."""
        for model in self._models.values():
            yield ModelView(model.name, model.limiter.state, model.breaker.view())

    def limiters(self) -> dict[str, LimiterState]:
        """How each limiter stands: of models that were asked, and of providers where something holds for all their models."""
        states = {model.name: model.limiter.state for model in self._models.values()}
        for provider in self._providers.values():
            if provider.limiter is not None:
                states[provider.limiter.name] = provider.limiter.state
        return states

    def standings(self) -> Iterator[ProviderStanding]:
        """How each provider stands, and after it each of its models that was asked: limits, and what is used of them now."""
        for provider in self._providers.values():
            settings = provider.settings
            name = settings.name or provider.client.host
            allowance = Allowance(settings.max_concurrency, settings.requests_per_minute, settings.tokens_per_minute)
            yield standing_of(name, allowance, None if provider.limiter is None else provider.limiter.state)
            for model in self._models.values():
                if model.provider is provider:
                    own = standing_of(model.name, model.limiter.allowance, model.limiter.state)
                    yield with_breaker(replace(own, provider=name), model.breaker.view())

    def open_breakers(self) -> dict[str, bool]:
        """Of each model that was asked, whether calls are held back because it kept failing."""
        return {model.name: model.breaker.is_open for model in self._models.values()}

    @property
    def _own_model(self) -> str | None:
        """For whoever names none: a model or a route, None where the first that is offered is asked and was not yet."""
        return self._default if self._default is not None else self._found_model

    def _split(self, model: str | None) -> tuple[AskedProvider, str | None]:
        """The provider of that full name and what it calls the model."""
        if model is None:
            model = self._own_model
        if model in self._routes:
            model = self._routes[model][0]
        if self._nameless is not None:
            return self._nameless, model
        name, _, rest = (model or "").partition("/")
        provider = self._providers.get(name)
        if provider is None or not rest:
            raise _unknown("is neither provider/model nor a route")
        return provider, rest

    def _model(self, model: str | None) -> AskedModel:
        found = self._models.get(model)
        if found is not None:
            return found
        provider, name = self._split(model)
        full_name = provider.settings.name or provider.client.host if name is None else provider.full_name(name)
        if len(self._models) >= _MAX_MODELS:
            self._models = {key: each for key, each in self._models.items() if not each.is_idle}
        own = self._limits.get(full_name, ModelLimits())
        settings = provider.settings
        allowance = Allowance(
            own.max_concurrency or settings.max_concurrency,
            own.requests_per_minute,
            own.tokens_per_minute,
            share=settings.share,
        )
        found = AskedModel(
            full_name, provider, name, self._limiter_of(full_name, allowance), self._breaker_of(full_name)
        )
        self._models[model] = found
        return found

    def _provider(self, settings: ProviderSettings, client: Client) -> AskedProvider:
        binds = (settings.requests_per_minute, settings.tokens_per_minute, settings.max_bytes_in_memory)
        has_room = self._slots is not None and settings.max_concurrency >= self._slots
        if has_room and binds == (None, None, None):
            return AskedProvider(settings, client, None)
        allowance = Allowance(settings.max_concurrency, *binds, share=settings.share)
        return AskedProvider(settings, client, self._limiter_of(settings.name or client.host, allowance))

    def _reply_bytes(self, model: AskedModel) -> int:
        settings = model.provider.settings
        return 0 if settings.max_bytes_in_memory is None else settings.max_reply_bytes

    async def _look_up_model(self) -> str:
        if self._nameless is None:
            raise _unknown("is not named")
        models = await self._nameless.client.find_models()
        if not models:
            raise AgentInvocationError(
                f"{self._nameless.client.host} lists no models: set CONCLAVE_LLM_MODEL to the one to ask",
                kind="no_model",
                usage=Usage(),
            )
        return models[0]

    def _forget(self, permit: CallPermit) -> None:
        if self._permits.get(permit.request_id) is permit:
            del self._permits[permit.request_id]


def _priced(usage: Usage, price: Price | None) -> Usage:
    if price is None:
        return usage
    return replace(usage, cost_usd=usd(price.of(usage.input_tokens, usage.output_tokens)))


def _unknown(problem: str) -> AgentInvocationError:
    return AgentInvocationError(f"the model asked for {problem}", kind="unknown_model", usage=Usage())


def _enter(model: AskedModel) -> Passage:
    passage = model.breaker.try_enter()
    if passage is None:
        raise _held_back(model)
    return passage


def _held_back(model: AskedModel) -> AgentInvocationError:
    view = model.breaker.view()
    return AgentInvocationError(
        f"{model.name!r} is not asked for another {view.opens_in_s:.0f} s, because it failed {view.failures} times in a row "
        f"({view.cause}): see what it says with conclave providers, or add a model to the route",
        kind="breaker_open",
        state=AgentState.FAILED,
        usage=Usage(),
    )
