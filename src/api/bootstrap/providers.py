"""Looks at each provider of the settings: whether it is there, takes the key and knows the models, with one tiny call at most."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from api.bootstrap.desk import provider_client, providers_of
from api.conclave import ModelCheck, ProviderCheck
from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Sampling
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState

if TYPE_CHECKING:
    from infrastructure.orchestrators.prices import PriceList
    from infrastructure.orchestrators.provider_client import ProviderClient
    from infrastructure.orchestrators.provider_settings import ProviderSettings
    from infrastructure.settings import Settings

__all__ = ["examine_providers", "has_providers"]

_QUESTION = "Is one more than zero?"
_MOST_TOKENS = 16
_CALL_TIMEOUT_S = 20.0
# A refused parameter is learnt from, and a refused call costs nothing: schema, name of the limit, temperature and seed.
_MOST_REFUSALS = 4

_NOT_REACHED = frozenset(
    {"connect_failed", "connection_lost", "certificate_refused", "no_model", "server_error", "timeout"}
)


def has_providers(settings: Settings) -> bool:
    """Whether the settings name any."""
    return settings.providers is not None or settings.llm_base_url is not None


async def examine_providers(settings: Settings) -> list[ProviderCheck]:
    """How each provider stands, in the order of the settings. Asks all at once, for half a minute at most."""
    from infrastructure.orchestrators.prices import PriceList

    prices = PriceList({} if settings.providers is None else settings.providers.prices)
    found = providers_of(settings, slots=1)
    return list(await asyncio.gather(*(_examine(settings, provider, prices) for provider in found)))


async def _examine(settings: Settings, provider: ProviderSettings, prices: PriceList) -> ProviderCheck:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(provider_client(provider, slots=1))
        look = _Look(client)
        await look.list_models()
        names = _names(settings, provider) or look.listed[:1]
        if look.may_go_on:
            unlisted = [name for name in names if not look.lists(name)]
            # What is listed is known; whether a schema is taken, no list tells.
            asked = next(iter(unlisted or (names if provider.json_schema else ())), None)
            if asked is not None:
                await look.ask(asked, wants_schema=provider.json_schema)
            else:
                look.settle_for_the_list()
        limits = {
            "max_concurrency": provider.max_concurrency if provider.name else settings.llm_max_concurrency,
            "requests_per_minute": provider.requests_per_minute,
            "tokens_per_minute": provider.tokens_per_minute,
        }
        return ProviderCheck(
            name=provider.name,
            address=client.host,
            has_key=provider.key is not None,
            reachable=look.reachable,
            accepted=look.accepted,
            models=[await _model(provider, name, look, prices) for name in names],
            json_schema=look.takes_schema if provider.json_schema else False,
            limits={name: limit for name, limit in limits.items() if limit is not None},
            offered=look.listed,
            calls=look.calls,
            problem=look.problem,
            remedy=_remedy(look, provider),
        )


def _names(settings: Settings, provider: ProviderSettings) -> list[str]:
    """The models of that provider that the settings name."""
    if settings.providers is None:
        return [] if settings.llm_model is None else [settings.llm_model]
    file = settings.providers
    full: Iterable[str] = (model for models in file.routes.values() for model in models)
    own = [*full, file.default_model, *file.prices, *file.limits]
    beginning = f"{provider.name}/"
    routed = [name.removeprefix(beginning) for name in own if name.startswith(beginning)]
    return list(dict.fromkeys([*provider.models, *routed]))


async def _model(provider: ProviderSettings, name: str, look: _Look, prices: PriceList) -> ModelCheck:
    full_name = f"{provider.name}/{name}" if provider.name else name
    # In a thread, because the first look-up reads the list of prices.
    price = await asyncio.to_thread(prices.price, full_name, base_url=provider.base_url, model=name)
    return ModelCheck(full_name, look.known.get(name, True if look.lists(name) else None), price)


def _remedy(look: _Look, provider: ProviderSettings) -> str:
    if not look.problem:
        return ""
    where = f"[providers.{provider.name}] in CONCLAVE_PROVIDERS_FILE" if provider.name else "CONCLAVE_LLM_BASE_URL"
    if not look.reachable:
        return f"Check the address in {where}, and that it runs and can be reached from here."
    if look.accepted is False:
        key = provider.api_key_env or ("api_key_env" if provider.name else "CONCLAVE_LLM_API_KEY")
        return f"Set {key} to a key of this provider that may be used for its models."
    if False in look.known.values():
        return f"Name a model that it offers{_some(look.listed)}."
    return "See what the provider says of it, and ask again."


def _some(listed: list[str]) -> str:
    return f", like {', '.join(listed[:5])}" if listed else ""


class _Look:
    """What was found out about one provider so far."""

    def __init__(self, client: ProviderClient) -> None:
        self._client = client
        self.reachable = True
        self.accepted: bool | None = None
        self.listed: list[str] = []
        self.known: dict[str, bool] = {}
        self.takes_schema: bool | None = None
        self.calls = 0
        self.problem = ""
        self._refused: AgentInvocationError | None = None

    @property
    def may_go_on(self) -> bool:
        """Whether a call would tell more."""
        return self.reachable and self.accepted is not False

    def lists(self, name: str) -> bool:
        """Whether the provider lists that model; some put a word before its name that may be left out."""
        return name in self.listed or f"models/{name}" in self.listed

    async def list_models(self) -> None:
        """Ask for the list, which costs nothing."""
        try:
            self.listed = await self._client.find_models()
        except AgentInvocationError as error:
            # Some list no models, and some want another header for it than for a call: only a call tells what is wrong there.
            self._refused = error
            if error.kind in _NOT_REACHED:
                self._learn(error)
        else:
            self.accepted = True

    def settle_for_the_list(self) -> None:
        """There is no model to call: what became of the list is all that can be known."""
        if self._refused is not None:
            self._learn(self._refused)

    async def ask(self, model: str, *, wants_schema: bool) -> None:
        """Make one call of a few tokens. Refused parameters are left out and asked again, which costs nothing."""
        request = AgentRequest(
            "check",
            ContextBundle("check", _QUESTION),
            model=model,
            expected=AnswerFormat(AnswerKind.VERDICT),
            sampling=Sampling(temperature=0.0, max_output_tokens=_MOST_TOKENS),
        )
        for _ in range(1 + _MOST_REFUSALS):
            try:
                async with asyncio.timeout(_CALL_TIMEOUT_S):
                    await self._client.complete(request, model=model)
            except TimeoutError:
                self.calls = 1
                self.problem = f"{self._client.host} did not answer within {_CALL_TIMEOUT_S:g} s"
                return
            except AgentInvocationError as error:
                if error.kind == "unsupported_parameter":
                    continue
                if error.state is not AgentState.INVALID:
                    self.calls = 0 if error.usage is not None and not error.usage.calls else 1
                    self.known.update({model: False} if error.kind == "unknown_model" else {})
                    self._learn(error)
                    return
            # A model that did not come to its first word within the few tokens has answered too.
            self.calls = 1
            self.accepted = self.known[model] = True
            if wants_schema:
                self.takes_schema = b'"response_format":' in self._client.body_of(request, model=model)
            return
        self.problem = f"{self._client.host} refuses one parameter after another"

    def _learn(self, error: AgentInvocationError) -> None:
        self.problem = error.message
        if error.kind in _NOT_REACHED:
            self.reachable = False
        elif error.kind == "unauthorised":
            self.accepted = False
