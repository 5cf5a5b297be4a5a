"""Asks agents over any OpenAI-compatible chat-completions endpoint, with aiohttp."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from infrastructure.orchestrators.chat_completion import read_completion, read_models
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.endpoint import Endpoint, checked_key
from infrastructure.orchestrators.first_model import FirstModel
from infrastructure.orchestrators.provider_refusal import complaint_in, refusal

__all__ = ["MAX_REPLY_BYTES", "OpenAIOrchestrator"]

_logger = logging.getLogger(__name__)

MAX_REPLY_BYTES = 1024 * 1024
_MAX_MODELS_BYTES = 8 * 1024 * 1024
_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_BODY_TIMEOUT_S = 2.0
_MODELS_TIMEOUT_S = 5.0
# Below the five seconds after which uvicorn and node close an idle connection, so that no request meets one being closed.
_KEEPALIVE_S = 4.0
# From this size on aiohttp wants a stream, so that one long prompt does not hold up the loop.
_STREAMED_BODY_BYTES = 1024 * 1024
_MAX_DIALECTS = 256
# A shorter secret may be a word that a model uses.
_MIN_SECRET_IN_CONTENT = 16


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class OpenAIOrchestrator:
    """One HTTP call for each `invoke`, whatever becomes of it: retries, deadlines and slots have their owner elsewhere.

    The key goes to `base_url` and nowhere else: redirects are refused, and neither proxies of the environment nor cookies
    are used. A cancelled call closes its connection. What a model refuses to be asked with (a JSON schema, a temperature) is
    remembered, and the next call goes without it.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        max_connections: int,
        connect_timeout_s: float = 5.0,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        confidence_steps: bool = False,
        reason_max_chars: int | None = None,
        structured: bool = True,
        grammar: bool = False,
        max_output_tokens: int | None = None,
        call_headers: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """Without a `model` the first that the endpoint lists is asked. Raises `ConfigurationError`; nothing is connected yet.

        `call_headers` says which headers a call carries besides, asked anew for each.

        `confidence_steps`, `reason_max_chars`, `grammar` and `max_output_tokens` are for small models: see `ChatRequestWriter`.
        """
        if max_connections < 1:
            raise ValueError(f"max_connections is {max_connections!r}: at least one is needed to ask anybody")
        self._endpoint = Endpoint.parse(base_url)
        self._key = checked_key(api_key)
        self._model = model or None
        self._max_connections = max_connections
        self._connect_timeout_s = connect_timeout_s
        self._max_reply_bytes = max_reply_bytes
        self._call_headers = call_headers
        self._writer = ChatRequestWriter(
            confidence_steps=confidence_steps,
            reason_max_chars=reason_max_chars,
            grammar=grammar,
            max_output_tokens=max_output_tokens,
        )
        self._dialect = Dialect(structured=structured)
        self._dialects: dict[str, Dialect] = {}
        self._completions_url = f"{self._endpoint.base_url}/chat/completions"
        self._session: aiohttp.ClientSession | None = None
        self._first_model = FirstModel(self._look_up_model)
        self._closed = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Get ready to ask; connects nowhere. `invoke` does it by itself when it has not been done."""
        self._open_session()

    async def close(self) -> None:
        """Drop all connections; calls in flight fail, and later ones too. May be called twice."""
        self._closed = True
        await self._first_model.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def prompt_of(self, request: AgentRequest) -> str:
        """What the agent is told, as one text, so that it can be committed to before the call."""
        return self._writer.prompt(request)

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The output of that agent, its text as the model wrote it. Raises `AgentInvocationError`."""
        try:
            return await self._ask(request)
        except AgentInvocationError as error:
            error.agent_id = request.agent_id
            raise

    async def list_models(self) -> list[str]:
        """The models that the endpoint offers, within five seconds. Raises `DependencyUnavailableError`."""
        try:
            return await self._fetch_models()
        except AgentInvocationError as error:
            raise DependencyUnavailableError(
                dependency="the model endpoint",
                problem=error.message,
                remedy="Check CONCLAVE_LLM_BASE_URL and CONCLAVE_LLM_API_KEY, and that it runs.",
            ) from error

    async def _ask(self, request: AgentRequest) -> AgentOutput:
        session = self._open_session()
        model = request.model or self._model or await self._first_model.get()
        dialect = self._dialects.get(model, self._dialect)
        body = self._writer.write(request, model=model, dialect=dialect)
        reply = await self._exchange(session, "POST", self._completions_url, body=body, most=self._max_reply_bytes)
        if not 200 <= reply.status < 300:
            raise self._refused(reply, model, dialect)
        completion = read_completion(reply.body, host=self._endpoint.host, prompt_characters=len(body))
        return AgentOutput(
            request.agent_id,
            request.request_id,
            completion.content,
            attempt=request.attempt,
            model=completion.model or model,
            usage=Usage(request.attempt, completion.input_tokens, completion.output_tokens),
            truncated=completion.cut_off,
        )

    def _refused(self, reply: _Reply, model: str, dialect: Dialect) -> AgentInvocationError:
        if reply.status in {400, 422}:
            complaint = complaint_in(reply.body)
            plainer = dialect.without_what_is_refused(complaint)
            if plainer is not None:
                self._remember(model, dialect, plainer)
                return AgentInvocationError(
                    f"{self._endpoint.host} answered {reply.status}: {complaint} (the next call goes without)",
                    kind="unsupported_parameter",
                    retryable=True,
                )
        return refusal(reply.status, headers=reply.headers, body=reply.body, host=self._endpoint.host)

    def _remember(self, model: str, dialect: Dialect, plainer: Dialect) -> None:
        # Many calls in flight learn the same at once: only the first finds anything to write down.
        if self._dialects.get(model, self._dialect) != dialect:
            return
        if len(self._dialects) >= _MAX_DIALECTS:
            del self._dialects[next(iter(self._dialects))]
        self._dialects[model] = plainer
        _logger.warning("model %r at %s is asked with %s from now on", model, self._endpoint.host, plainer)

    async def _look_up_model(self) -> str:
        models = await self._fetch_models()
        if not models:
            raise AgentInvocationError(
                f"{self._endpoint.host} lists no models: set CONCLAVE_LLM_MODEL to the one to ask", kind="no_model"
            )
        return models[0]

    async def _fetch_models(self) -> list[str]:
        # A session of its own: a check of the endpoint must not queue behind agents that use up all connections.
        url, host = f"{self._endpoint.base_url}/models", self._endpoint.host
        try:
            async with asyncio.timeout(_MODELS_TIMEOUT_S), self._new_session(1) as session:
                reply = await self._exchange(session, "GET", url, most=_MAX_MODELS_BYTES)
        except TimeoutError:
            raise AgentInvocationError(
                f"{host} did not list its models within {_MODELS_TIMEOUT_S:g} s", kind="no_model", retryable=True
            ) from None
        if reply.status != 200:
            raise refusal(reply.status, headers=reply.headers, body=reply.body, host=host)
        return read_models(reply.body, host=host)

    async def _exchange(
        self, session: aiohttp.ClientSession, method: str, url: str, *, body: bytes | None = None, most: int
    ) -> _Reply:
        """One request and its whole answer, at most `most` bytes of it. Raises `AgentInvocationError`."""
        data = io.BytesIO(body) if body is not None and len(body) >= _STREAMED_BODY_BYTES else body
        headers = None if self._call_headers is None else self._call_headers()
        try:
            async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
                if 200 <= response.status < 300:
                    content = await self._read(response, most)
                else:
                    content = await _read_refusal(response)
                return _Reply(response.status, response.headers, self._redacted(content, response.status))
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            failure = self._broken(error)
        # Raised outside of the handler, so that no chain leads to aiohttp's error: some hold the request's headers, the key among them.
        raise failure

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        received = bytearray()
        if (response.content_length or 0) <= most:
            while chunk := await response.content.readany():
                received += chunk
                if len(received) > most:
                    break
            else:
                return bytes(received)
        response.close()
        raise AgentInvocationError(
            f"{self._endpoint.host} sends a reply of more than {most} bytes: it was not read further",
            kind="reply_too_large",
        )

    def _redacted(self, content: bytes, status: int) -> bytes:
        """`content` without the key, should the provider repeat it."""
        key = self._key
        if key is None or (status < 300 and len(key) < _MIN_SECRET_IN_CONTENT):
            return content
        return content.replace(key.encode(), b"[key]")

    def _broken(self, error: Exception) -> AgentInvocationError:
        """What an exchange that did not come to its end means. Most specific first."""
        host = self._endpoint.host
        if self._closed:
            return AgentInvocationError("the connections to the models were closed meanwhile", kind="closed")
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
            return AgentInvocationError(
                f"{host} could not prove who it is ({type(error).__name__}): check the address and the certificates",
                kind="certificate_refused",
            )
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            problem = f"{host} did not take the connection within {self._connect_timeout_s:g} s"
            return AgentInvocationError(problem, kind="connect_failed", retryable=True)
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            problem = f"{host} cannot be reached: its name is not known here"
            return AgentInvocationError(problem, kind="connect_failed", retryable=True)
        if isinstance(error, aiohttp.ClientConnectorError):
            problem = f"{host} cannot be reached: {os.strerror(error.os_error.errno or errno.EIO)}"
            return AgentInvocationError(problem, kind="connect_failed", retryable=True)
        if isinstance(error, aiohttp.InvalidURL):
            problem = f"{host} is no address to connect to: check CONCLAVE_LLM_BASE_URL"
            return AgentInvocationError(problem, kind="connect_failed")
        if isinstance(error, aiohttp.ClientError | OSError):
            problem = f"{host} broke off its answer or did not speak HTTP ({type(error).__name__})"
            return AgentInvocationError(problem, kind="connection_lost", retryable=True)
        return AgentInvocationError(f"{host} could not be asked ({type(error).__name__})", kind="client_error")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise AgentInvocationError("the connections to the models are closed", kind="closed")
        if self._session is None:
            self._session = self._new_session(self._max_connections)
        return self._session

    def _new_session(self, connections: int) -> aiohttp.ClientSession:
        headers = {
            "Accept": "application/json",
            # Answers are short, and what is not packed cannot swell.
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "archon-conclave",
        }
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections,
                limit_per_host=connections,
                keepalive_timeout=_KEEPALIVE_S,
                ttl_dns_cache=60,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


async def _read_refusal(response: aiohttp.ClientResponse) -> bytes:
    """The beginning of an error's body: what matters is the status, so neither a long nor a slow one is waited for."""
    received = bytearray()
    if 300 <= response.status < 400:
        return b""
    try:
        async with asyncio.timeout(_REFUSAL_BODY_TIMEOUT_S):
            while len(received) <= _MAX_REFUSAL_BYTES and (chunk := await response.content.readany()):
                received += chunk
    except (TimeoutError, aiohttp.ClientError):
        _logger.debug("the text of an answer %s was not read to its end", response.status)
    return bytes(received)
