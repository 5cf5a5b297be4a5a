"""The desk over which models are asked: the providers of the settings, each with its client, and what paces them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from infrastructure.embedders.provider_embedder import ProviderEmbedder
    from infrastructure.orchestrators.allowance import Allowance
    from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts
    from infrastructure.orchestrators.provider_desk import ProviderDesk
    from infrastructure.orchestrators.provider_limiter import ProviderLimiter
    from infrastructure.orchestrators.provider_settings import ProviderSettings
    from infrastructure.settings import Settings
    from infrastructure.telemetry.open_telemetry import OpenTelemetryTracer

__all__ = ["open_desk", "provider_client", "providers_of", "put_recording_between"]

# Named where recorded replies stand in for it; reserved for what does not exist (RFC 6761, 6.4).
_NOWHERE = "http://recording.invalid/v1"


def open_desk(
    settings: Settings, slots: int, stack: AsyncExitStack, tracer: OpenTelemetryTracer | None = None
) -> ProviderDesk:
    """The desk of the providers that the settings name, closed with `stack`; connects nowhere.

    `slots` is how many calls there can be at once. Raises `ConfigurationError`.
    """
    from infrastructure.orchestrators.prices import PriceList
    from infrastructure.orchestrators.provider_desk import ProviderDesk
    from infrastructure.orchestrators.provider_limiter import ProviderLimiter

    call_headers = tracer.call_headers if tracer is not None and settings.traces_to_llm else None
    shared = None
    if settings.redis_url is not None:
        from infrastructure.orchestrators.redis_pacing import RedisPacing

        shared = RedisPacing(settings.redis_url)
        stack.push_async_callback(shared.close)

    def client_of(provider: ProviderSettings, heard: Callable[[str, ReplyFacts], None]) -> ProviderClient:
        client = provider_client(provider, slots=slots, heard=heard, call_headers=call_headers)
        put_recording_between(client, settings, provider.name)
        return client

    def limiter_of(name: str, allowance: Allowance) -> ProviderLimiter:
        return ProviderLimiter(name, allowance, shared=shared)

    file = settings.providers
    prices = PriceList({} if file is None else file.prices)
    desk = ProviderDesk(
        providers_of(settings, slots=slots),
        client_of=client_of,
        limiter_of=limiter_of,
        prices=prices,
        routes={} if file is None else file.routes,
        limits={} if file is None else file.limits,
        default_model=settings.llm_model if file is None else file.default_model,
        slots=slots,
    )
    stack.push_async_callback(desk.close)
    # Meanwhile, because the list of prices takes half a second to read, and the first question should not wait for it.
    learning = asyncio.get_running_loop().run_in_executor(None, desk.learn_prices)
    stack.push_async_callback(asyncio.wait, [learning])
    return desk


def put_recording_between(client: ProviderClient | ProviderEmbedder, settings: Settings, provider: str) -> None:
    """Let the client record its replies, or answer from recorded ones, where the settings say so; a folder for each provider."""
    from infrastructure.orchestrators.recorded_replies import RecordingExchange, ReplayExchange

    record_dir, replay_dir = settings.record_dir, settings.replay_dir
    if record_dir is not None:
        client.wrap_exchange(lambda exchange: RecordingExchange(exchange, record_dir / provider))
    if replay_dir is not None:
        client.wrap_exchange(lambda _: ReplayExchange(replay_dir / provider))


def providers_of(settings: Settings, *, slots: int) -> tuple[ProviderSettings, ...]:
    """Those of the file of providers, else the one without a name that `CONCLAVE_LLM_BASE_URL` stands for.

    Raises `ConfigurationError` where there is neither.
    """
    from infrastructure.orchestrators.provider_settings import ProviderSettings

    if settings.providers is not None:
        return tuple(settings.providers.providers.values())
    base_url = settings.llm_base_url
    if base_url is None and settings.replay_dir is not None:
        base_url = _NOWHERE
    if base_url is None:
        raise ConfigurationError(
            variable="CONCLAVE_LLM_BASE_URL", problem="it is not set", remedy="Give the address with its /v1."
        )
    key = settings.llm_api_key
    return (
        ProviderSettings(
            "",
            base_url,
            key=None if key is None else key.get_secret_value(),
            max_concurrency=slots,
            requests_per_minute=settings.llm_requests_per_minute,
            tokens_per_minute=settings.llm_tokens_per_minute,
        ),
    )


def provider_client(
    provider: ProviderSettings,
    *,
    slots: int,
    heard: Callable[[str, ReplyFacts], None] | None = None,
    call_headers: Callable[[], Mapping[str, str]] | None = None,
) -> ProviderClient:
    """A client of that provider, not yet connected."""
    from infrastructure.orchestrators.chat_request import Dialect
    from infrastructure.orchestrators.provider_client import ProviderClient
    from infrastructure.orchestrators.provider_refusal import NAMES_OF_ONE, SettingNames

    names = NAMES_OF_ONE
    if provider.name:
        where = f"[providers.{provider.name}] in CONCLAVE_PROVIDERS_FILE"
        names = SettingNames(
            f"base_url of {where}", provider.api_key_env or f"api_key_env of {where}", f"models of {where}"
        )
    return ProviderClient(
        base_url=provider.base_url,
        api_key=provider.key,
        # As many as may be in flight, so that nobody waits inside the client, where waiting would count against the agent's time.
        max_connections=min(provider.max_concurrency, slots),
        dialect=Dialect(
            structured=provider.json_schema,
            limit_name=provider.limit_name,
            temperature=provider.temperature,
            seed=provider.seed,
            stream=provider.stream,
        ),
        first_byte_timeout_s=provider.first_byte_timeout_s,
        idle_timeout_s=provider.idle_timeout_s,
        max_reply_bytes=provider.max_reply_bytes,
        call_headers=call_headers,
        heard=heard,
        names=names,
    )
