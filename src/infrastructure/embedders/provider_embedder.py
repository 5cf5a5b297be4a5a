"""Asks a provider for the vectors of texts, over the `/embeddings` of an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from application.ports.model_desk import Forecast
from application.ports.text_embedder import CallRecord
from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from domain.models.money import Price, usd
from infrastructure.orchestrators.asked_model import CallPermit
from infrastructure.orchestrators.chat_completion import told_usage
from infrastructure.orchestrators.endpoint import Endpoint, checked_key
from infrastructure.orchestrators.exchange import Exchange, Reply, pace_headers
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_exchange import Patience, ProviderExchange
from infrastructure.orchestrators.provider_refusal import NAMES_OF_ONE, SettingNames, refusal

__all__ = ["EmbeddingDesk", "ProviderEmbedder"]

_ALIKE_FROM = 0.8
_MOST_REPLY_BYTES = 32 * 1024 * 1024
_MOST_DIMENSIONS = 16_384
_MOST_OF_A_NUMBER = 1e100
# What every model takes whole: some refuse a longer text instead of cutting it.
_MOST_CHARACTERS = 8_000
_MOST_CONNECTIONS = 8
_TIMEOUT_S = 30.0
_NOTHING = Usage()


class EmbeddingDesk(Protocol):
    """The part of a `ProviderDesk` that is needed here: the same prices, limiters and breakers as for the calls of agents."""

    def price_of(self, model: str | None) -> Price | None:
        """What the model of that full name takes, None where nobody knows."""
        ...

    def foresee_embedding(self, model: str, texts: Sequence[str]) -> Forecast:
        """What the call takes at most. Raises `AgentInvocationError`."""
        ...

    async def admit_embedding(
        self, model: str, forecast: Forecast, *, key_name: str | None, batch_id: str, until: float | None
    ) -> CallPermit:
        """Leave for it. Raises `AgentInvocationError`."""
        ...


class ProviderEmbedder:
    """All texts in one request, each cut to its first 8,000 characters. An answer that is not exactly what was asked for is refused.

    Every request has leave of the desk, and is announced to the record before it is made, whatever becomes of it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        model: str,
        desk: EmbeddingDesk,
        full_name: str | None = None,
        alike_from: float = _ALIKE_FROM,
        timeout_s: float = _TIMEOUT_S,
        names: SettingNames = NAMES_OF_ONE,
    ) -> None:
        """Connects nowhere. `full_name` is how the desk knows the model, where that is not `model`, as the provider does.

        Raises `ConfigurationError` for an address or a key that no request can carry.
        """
        self._exchange: Exchange = ProviderExchange(
            Endpoint.parse(base_url, variable=names.base_url),
            checked_key(api_key, variable=names.api_key),
            max_connections=_MOST_CONNECTIONS,
            patience=Patience(),
            call_headers=None,
            address_setting=names.base_url,
        )
        self._desk = desk
        self._model = model
        self._full_name = full_name or model
        self._alike_from = alike_from
        self._timeout_s = timeout_s
        self._names = names

    @property
    def name(self) -> str:
        """The full name of the model."""
        return self._full_name

    @property
    def alike_from(self) -> float:
        """The cosine from which two texts say much the same."""
        return self._alike_from

    def wrap_exchange(self, wrap: Callable[[Exchange], Exchange]) -> None:
        """Ask from now on through what `wrap` makes of the present exchange: to record its replies, or to replay others."""
        self._exchange = wrap(self._exchange)

    async def close(self) -> None:
        """Drop the connections. May be called twice."""
        await self._exchange.close()

    def foresee(self, texts: Sequence[str]) -> Forecast:
        """The one call for all of them. Raises `AgentInvocationError`."""
        return self._desk.foresee_embedding(self._full_name, [text[:_MOST_CHARACTERS] for text in texts])

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        """A vector for each text, in their order, within 30 s of leave. Raises `DependencyUnavailableError`, and what `record` does."""
        if not texts:
            return []
        cut = [text[:_MOST_CHARACTERS] for text in texts]
        try:
            forecast = self.foresee(cut)
            permit = await self._get_leave(forecast, record)
            reply, usage = await self._call(cut, forecast, permit, record)
        except AgentInvocationError as error:
            raise self._unavailable(error.message) from error
        del usage
        return await asyncio.to_thread(self._vectors, reply.body, len(cut))

    async def _get_leave(self, forecast: Forecast, record: CallRecord | None) -> CallPermit:
        """Hold what it may take, wait in line, and have it recorded, as for the call of an agent."""
        if record is None:
            return await self._desk.admit_embedding(self._full_name, forecast, key_name=None, batch_id="", until=None)
        await record.reserve(forecast)
        try:
            permit = await self._desk.admit_embedding(
                self._full_name, forecast, key_name=record.key_name, batch_id=record.batch_id, until=record.until
            )
        except BaseException:
            record.give_back(forecast)
            raise
        try:
            await record.starting(forecast)
        except BaseException:
            permit.end(_NOTHING)
            raise
        return permit

    async def _call(
        self, texts: Sequence[str], forecast: Forecast, permit: CallPermit, record: CallRecord | None
    ) -> tuple[Reply, Usage]:
        """The whole reply and what it took; the permit and the record know the end, whatever it is. Raises `AgentInvocationError`."""
        usage: Usage | None = None
        failure: AgentInvocationError | None = None
        kind: str | None = "cancelled"
        try:
            permit.sent()
            reply = await self._post(texts, permit)
            usage = self._usage(reply, forecast)
            kind = None
        except AgentInvocationError as error:
            failure, usage, kind = error, error.usage, error.kind
            raise
        finally:
            if usage is not None and not usage.calls and failure is not None:
                usage = replace(usage, calls=1)
            permit.end(usage, failure)
            if record is not None:
                record.ended(usage, failure=kind)
        return reply, usage

    async def _post(self, texts: Sequence[str], permit: CallPermit) -> Reply:
        body = json.dumps({"model": self._model, "input": texts, "encoding_format": "float"}).encode()

        def hear(status: int, headers: Mapping[str, str], content: bytes) -> None:
            del content
            permit.facts = ReplyFacts(status, None, pace_headers(headers))

        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._exchange.post(
                    "/embeddings", body, most=_MOST_REPLY_BYTES, streams=False, heard=hear
                )
        except TimeoutError:
            problem = f"{self._exchange.host} did not answer within {self._timeout_s:g} s"
            raise AgentInvocationError(problem, kind="timeout") from None
        if not 200 <= reply.status < 300:
            raise refusal(
                reply.status, headers=reply.headers, body=reply.body, host=self._exchange.host, names=self._names
            )
        return reply

    def _usage(self, reply: Reply, forecast: Forecast) -> Usage:
        """What the reply says that it took, and what it takes at most where it does not say."""
        told = _told(reply.body)
        tokens = forecast.hold.tokens if told is None else told.input_tokens
        price = self._desk.price_of(self._full_name)
        return Usage(1, tokens, 0, 0.0 if price is None else usd(price.of(tokens, 0)))

    def _vectors(self, body: bytes, wanted: int) -> list[list[float]]:
        try:
            document = json.loads(body)
            items: list[Any] = document["data"]
            by_place = {item["index"]: item["embedding"] for item in items}
            vectors = [by_place[place] for place in range(wanted)]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._unavailable("its answer holds no vector for each text") from error
        sizes = {len(vector) if isinstance(vector, list) else 0 for vector in vectors}
        if len(items) != wanted or len(sizes) != 1 or not 0 < min(sizes) <= _MOST_DIMENSIONS:
            raise self._unavailable("its vectors are not of one length, one for each text")
        if not all(_is_finite(number) for vector in vectors for number in vector):
            raise self._unavailable("its vectors hold something else than finite numbers")
        return [[float(number) for number in vector] for vector in vectors]

    def _unavailable(self, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the embedding model {self._full_name!r}",
            problem=problem,
            remedy="Check CONCLAVE_EMBEDDING_MODEL, and that the provider offers /embeddings.",
        )


def _told(body: bytes) -> Usage | None:
    """What a reply says that it read; nothing is ever written."""
    try:
        usage = json.loads(body)["usage"]
        return told_usage({"prompt_tokens": usage["prompt_tokens"], "completion_tokens": 0})
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _is_finite(number: object) -> bool:
    # Squares are added up, so that what is finite alone may not be too large either.
    return isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < _MOST_OF_A_NUMBER
