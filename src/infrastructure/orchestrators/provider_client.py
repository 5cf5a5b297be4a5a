"""Asks one provider over its OpenAI-compatible API: in the dialect that it speaks, and with the outcome named as what it was."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from infrastructure.orchestrators.chat_completion import completion_of, read_completion, read_models
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.endpoint import Endpoint, checked_key
from infrastructure.orchestrators.exchange import Exchange, Reply, pace_headers
from infrastructure.orchestrators.provider_exchange import Patience, ProviderExchange
from infrastructure.orchestrators.provider_refusal import NAMES_OF_ONE, SettingNames, complaint_in, refusal

__all__ = ["MAX_REPLY_BYTES", "ProviderClient", "ReplyFacts"]

_logger = logging.getLogger(__name__)

MAX_REPLY_BYTES = 1024 * 1024
_MAX_MODELS_BYTES = 8 * 1024 * 1024
_MODELS_TIMEOUT_S = 5.0
_MAX_DIALECTS = 256


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """What one reply says about the pace that a provider takes.

    `headers` are those that speak of it (`retry-after*`, `ratelimit*`, `x-ratelimit-*`, `anthropic-ratelimit-*`), their names in
    lower case; `retry_after_s` is the wait asked for in seconds, from a header or from the text of a refusal.
    """

    status: int
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class ProviderClient:
    """One HTTP request for each call, whatever becomes of it: retries, deadlines and slots have their owner elsewhere.

    The key goes to `base_url` and nowhere else: redirects are refused, and neither proxies of the environment nor cookies
    are used. A cancelled call closes its connection. What a model refuses to be asked with (a JSON schema, a temperature) is
    remembered, and the next call goes without it. What comes on a connection without having been asked for is never taken for
    the answer of the next call.

    Each `AgentInvocationError` says in `usage` what the call took: `Usage()` where the provider refused it or was not reached,
    the counts where the reply told them, None where it may have been answered and paid for and nobody knows.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        max_connections: int,
        dialect: Dialect | None = None,
        writer: ChatRequestWriter | None = None,
        connect_timeout_s: float = 5.0,
        first_byte_timeout_s: float = 30.0,
        idle_timeout_s: float = 30.0,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        call_headers: Callable[[], Mapping[str, str]] | None = None,
        heard: Callable[[str, ReplyFacts], None] | None = None,
        names: SettingNames = NAMES_OF_ONE,
    ) -> None:
        """Raises `ConfigurationError`; nothing is connected yet.

        `dialect` is what the provider can do, before anything is learnt from its refusals. Where it streams, a reply has to begin
        within `first_byte_timeout_s`, and each further line of it to come within `idle_timeout_s`; others have the time that the
        caller has. `call_headers` says which headers a call carries besides, asked anew for each. `heard` is told of each reply to
        a call, with the model asked, before the call returns or raises; it neither waits nor raises. `names` are the settings that
        messages send their reader to.
        """
        if max_connections < 1:
            raise ValueError(f"max_connections is {max_connections!r}: at least one is needed to ask anybody")
        self._exchange: Exchange = ProviderExchange(
            Endpoint.parse(base_url, variable=names.base_url),
            checked_key(api_key, variable=names.api_key),
            max_connections=max_connections,
            patience=Patience(connect_timeout_s, first_byte_timeout_s, idle_timeout_s),
            call_headers=call_headers,
            address_setting=names.base_url,
        )
        self._names = names
        self._max_reply_bytes = max_reply_bytes
        self._heard = heard
        self._writer = writer or ChatRequestWriter()
        self._dialect = dialect or Dialect()
        self._dialects: dict[str, Dialect] = {}

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def host(self) -> str:
        """Whom it asks, as messages name it: the host, with the port where one is given."""
        return self._exchange.host

    def wrap_exchange(self, wrap: Callable[[Exchange], Exchange]) -> None:
        """Ask from now on through what `wrap` makes of the present exchange: to record its replies, or to replay others."""
        self._exchange = wrap(self._exchange)

    async def start(self) -> None:
        """Get ready to ask; connects nowhere. `complete` does it by itself when it has not been done."""
        self._exchange.open()

    async def close(self) -> None:
        """Drop all connections; calls in flight fail, and later ones too. May be called twice."""
        await self._exchange.close()

    def prompt_of(self, request: AgentRequest) -> str:
        """What the agent is told, as one text, so that it can be committed to before the call."""
        return self._writer.prompt(request)

    def body_of(self, request: AgentRequest, *, model: str) -> bytes:
        """The body of the request that `complete` would send now, in UTF-8."""
        return self._writer.write(request, model=model, dialect=self._dialects.get(model, self._dialect))

    async def complete(self, request: AgentRequest, *, model: str) -> AgentOutput:
        """What that model answers for the agent, as it wrote it. Raises `AgentInvocationError`."""
        try:
            return await self._ask(request, model)
        except AgentInvocationError as error:
            error.agent_id = request.agent_id
            raise

    async def list_models(self) -> list[str]:
        """The models that the provider offers, within five seconds. Raises `DependencyUnavailableError`."""
        try:
            return await self.find_models()
        except AgentInvocationError as error:
            raise DependencyUnavailableError(
                dependency="the model endpoint",
                problem=error.message,
                remedy=f"Check {self._names.base_url} and {self._names.api_key}, and that it runs.",
            ) from error

    async def find_models(self) -> list[str]:
        """As `list_models`, for a call to an agent. Raises `AgentInvocationError`, whose usage is nothing."""
        try:
            return await self._fetch_models()
        except AgentInvocationError as error:
            error.usage = Usage()
            raise

    async def _ask(self, request: AgentRequest, model: str) -> AgentOutput:
        dialect = self._dialects.get(model, self._dialect)
        body = self._writer.write(request, model=model, dialect=dialect)
        reply = await self._exchange.post(
            "/chat/completions",
            body,
            most=self._max_reply_bytes,
            streams=dialect.stream,
            heard=partial(self._hear, model),
        )
        if not 200 <= reply.status < 300:
            raise self._refused(reply, model, dialect)
        if reply.document is not None:
            completion = completion_of(reply.document, host=self.host, request_body=body)
        else:
            completion = read_completion(reply.body, host=self.host, request_body=body)
        return AgentOutput(
            request.agent_id,
            request.request_id,
            completion.content,
            attempt=request.attempt,
            model=completion.model or model,
            usage=Usage(1, completion.input_tokens, completion.output_tokens),
            truncated=completion.cut_off,
        )

    def _refused(self, reply: Reply, model: str, dialect: Dialect) -> AgentInvocationError:
        if reply.status in {400, 422}:
            complaint = complaint_in(reply.body)
            plainer = dialect.without_what_is_refused(complaint)
            if plainer is not None:
                self._remember(model, dialect, plainer)
                return AgentInvocationError(
                    f"{self.host} answered {reply.status}: {complaint} (the next call goes without)",
                    kind="unsupported_parameter",
                    retryable=True,
                    usage=Usage(),
                )
        return self._refusal(reply)

    def _refusal(self, reply: Reply) -> AgentInvocationError:
        return refusal(reply.status, headers=reply.headers, body=reply.body, host=self.host, names=self._names)

    def _remember(self, model: str, dialect: Dialect, plainer: Dialect) -> None:
        # Many calls in flight learn the same at once: only the first finds anything to write down.
        if self._dialects.get(model, self._dialect) != dialect:
            return
        if len(self._dialects) >= _MAX_DIALECTS:
            del self._dialects[next(iter(self._dialects))]
        self._dialects[model] = plainer
        _logger.warning("model %r at %s is asked with %s from now on", model, self.host, plainer)

    async def _fetch_models(self) -> list[str]:
        try:
            async with asyncio.timeout(_MODELS_TIMEOUT_S):
                reply = await self._exchange.get("/models", most=_MAX_MODELS_BYTES)
        except TimeoutError:
            raise AgentInvocationError(
                f"{self.host} did not list its models within {_MODELS_TIMEOUT_S:g} s", kind="no_model", retryable=True
            ) from None
        if reply.status != 200:
            raise self._refusal(reply)
        return read_models(reply.body, host=self.host)

    def _hear(self, model: str, status: int, headers: Mapping[str, str], refused: bytes) -> None:
        if self._heard is None:
            return
        wait = None
        if not 200 <= status < 300:
            wait = self._refusal(Reply(status, headers, refused)).retry_after_s
        self._heard(model, ReplyFacts(status, wait, pace_headers(headers)))
