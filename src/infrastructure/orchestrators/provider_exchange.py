"""Makes one HTTP request to a provider and reads its whole answer, with aiohttp: bounded, never redirected, never another's."""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import secrets
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING
from weakref import WeakSet

import aiohttp

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.chat_stream import ChatStream, looks_like_events
from infrastructure.orchestrators.endpoint import Endpoint
from infrastructure.orchestrators.exchange import Heard, Reply

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["Patience", "ProviderExchange"]

_logger = logging.getLogger(__name__)

_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_BODY_TIMEOUT_S = 2.0
_END_TIMEOUT_S = 0.5
# Below the five seconds after which uvicorn and node close an idle connection, so that no request meets one being closed.
_KEEPALIVE_S = 4.0
# From this size on aiohttp wants a stream, so that one long prompt does not hold up the loop.
_STREAMED_BODY_BYTES = 1024 * 1024
# A shorter secret may be a word that a model uses.
_MIN_SECRET_IN_CONTENT = 16
# The names under which OpenAI takes a caller's own id of a request, and under which proxies send one back.
_REQUEST_ID = "X-Client-Request-Id"
_ECHOES = (_REQUEST_ID, "X-Request-Id")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a provider is waited for, in seconds: to connect, and where it streams for the first byte and each further line."""

    connect_s: float = 5.0
    first_byte_s: float = 30.0
    idle_s: float = 30.0


class _IdleClock:
    """The moment at which a streamed reply is given up: first that of its first byte, then that of its next line."""

    def __init__(self, deadline: asyncio.Timeout, idle_s: float | None) -> None:
        self._deadline = deadline
        self._idle_s = idle_s
        self.has_begun = False

    def went_on(self) -> None:
        """Something came; the time counts anew."""
        self.has_begun = True
        if self._idle_s is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._idle_s)

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._deadline.reschedule(None)


class ProviderExchange:
    """The connections to one provider. One call of `post` or `get` is one request, whatever becomes of it.

    The key goes to the endpoint and nowhere else: redirects are refused, and neither proxies of the environment nor cookies are
    used. A cancelled exchange closes its connection. What comes on a connection without having been asked for is never taken for
    the answer to the next request.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        key: str | None,
        *,
        max_connections: int,
        patience: Patience,
        call_headers: Callable[[], Mapping[str, str]] | None,
        address_setting: str,
    ) -> None:
        """Connects nowhere. `call_headers` says which headers a request carries besides, asked anew for each."""
        self._endpoint = endpoint
        self._key = key
        self._max_connections = max_connections
        self._patience = patience
        self._call_headers = call_headers
        self._address_setting = address_setting
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._own_ids = f"conclave-{secrets.token_hex(8)}-"
        self._exchanges = count(1)

    @property
    def host(self) -> str:
        """Whom it asks, as messages name it."""
        return self._endpoint.host

    def open(self) -> None:
        """Get ready; connects nowhere. Raises `AgentInvocationError` once it is closed."""
        self._open_session()

    async def close(self) -> None:
        """Drop all connections; exchanges under way fail, and later ones too. May be called twice."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        """The answer to `body`, at most `most` bytes of it. Raises `AgentInvocationError` unless a whole one came.

        `heard` is told of each answer as soon as what matters of it is known: status, headers, and the text of a refusal.
        """
        return await self._exchange(
            self._open_session(), "POST", path, body=body, most=most, streams=streams, heard=heard
        )

    async def get(self, path: str, *, most: int) -> Reply:
        """As `post`, on a connection of its own: it does not queue behind agents that use up all the others."""
        async with self._new_session(1) as session:
            return await self._exchange(session, "GET", path, most=most)

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        most: int,
        streams: bool = False,
        heard: Heard | None = None,
    ) -> Reply:
        url = f"{self._endpoint.base_url}{path}"
        data = io.BytesIO(body) if body is not None and len(body) >= _STREAMED_BODY_BYTES else body
        own_id = f"{self._own_ids}{next(self._exchanges)}"
        headers = {_REQUEST_ID: own_id, **(self._call_headers() if self._call_headers is not None else {})}
        if streams:
            headers["Accept"] = "text/event-stream, application/json"
        deadline = asyncio.timeout(self._patience.first_byte_s if streams else None)
        clock = _IdleClock(deadline, self._patience.idle_s if streams else None)
        try:
            async with (
                deadline,
                session.request(method, url, data=data, headers=headers, allow_redirects=False) as response,
            ):
                if not 200 <= response.status < 300:
                    clock.stop()
                    content = await _read_refusal(response)
                    content = self._redacted(content, response.status)
                    if heard is not None:
                        heard(response.status, response.headers, content)
                    return Reply(response.status, response.headers, content)
                if heard is not None:
                    heard(response.status, response.headers, b"")
                if self._is_for_another(response, own_id) or _came_too_early(data):
                    response.close()
                    raise AgentInvocationError(
                        f"{self.host} sent the reply of another request",
                        kind="reply_of_another_request",
                        retryable=True,
                    )
                return await self._read(response, most, clock)
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            failure = self._too_slow(clock) if deadline.expired() else self._broken(error)
        # Raised outside of the handler, so that no chain leads to aiohttp's error: some hold the request's headers, the key among them.
        raise failure

    def _is_for_another(self, response: aiohttp.ClientResponse, own_id: str) -> bool:
        """Whether the reply carries the id of another call of this client: ids of anybody else's making say nothing."""
        for name in _ECHOES:
            echo = response.headers.get(name)
            if echo is not None and echo != own_id and echo.startswith(self._own_ids):
                return True
        return False

    async def _read(self, response: aiohttp.ClientResponse, most: int, clock: _IdleClock) -> Reply:
        received = bytearray()
        if (response.content_length or 0) <= most:
            while chunk := await response.content.readany():
                if not received and looks_like_events(response.content_type, chunk):
                    return await self._read_events(response, chunk, most, clock)
                clock.went_on()
                received += chunk
                if len(received) > most:
                    break
            else:
                return Reply(response.status, response.headers, self._redacted(bytes(received), response.status))
        response.close()
        raise AgentInvocationError(
            f"{self._endpoint.host} sends a reply of more than {most} bytes: it was not read further",
            kind="reply_too_large",
        )

    async def _read_events(self, response: aiohttp.ClientResponse, chunk: bytes, most: int, clock: _IdleClock) -> Reply:
        """The rest of a reply that is a stream of events. A byte now and then does not count as going on, a whole line does."""
        stream = ChatStream(host=self.host, most=most, redact=lambda line: self._redacted(line, response.status))
        clock.went_on()
        try:
            while chunk:
                if stream.feed(chunk):
                    clock.went_on()
                if stream.is_done:
                    break
                chunk = await response.content.readany()
            stream.end()
        except aiohttp.ClientError:
            if not stream.is_whole:
                raise
        clock.stop()
        await _read_to_the_end(response)
        document = stream.document()
        for choice in document["choices"]:
            # Once more for the whole: a key may have come in two pieces.
            choice["message"] = {name: self._redacted_text(text) for name, text in choice["message"].items()}
        return Reply(response.status, response.headers, b"", document)

    def _redacted(self, content: bytes, status: int) -> bytes:
        """`content` without the key, should the provider repeat it."""
        key = self._key
        if key is None or (status < 300 and len(key) < _MIN_SECRET_IN_CONTENT):
            return content
        return content.replace(key.encode(), b"[key]")

    def _redacted_text(self, text: str) -> str:
        return self._redacted(text.encode(errors="surrogatepass"), 200).decode(errors="surrogatepass")

    def _too_slow(self, clock: _IdleClock) -> AgentInvocationError:
        if clock.has_begun:
            problem = f"{self.host} began its answer and sent nothing more for {self._patience.idle_s:g} s"
            kind = "stalled"
        else:
            problem = f"{self.host} did not begin its answer within {self._patience.first_byte_s:g} s"
            kind = "no_first_byte"
        return AgentInvocationError(problem, kind=kind, state=AgentState.TIMED_OUT, retryable=True)

    def _broken(self, error: Exception) -> AgentInvocationError:
        """What an exchange that did not come to its end means. Most specific first."""
        host = self._endpoint.host
        if self._closed:
            return AgentInvocationError("the connections to the models were closed meanwhile", kind="closed")
        if isinstance(error, _SpokeFirstError):
            problem = f"{host} answered before it was asked: it does not speak HTTP"
            return AgentInvocationError(problem, kind="connection_lost", retryable=True, usage=Usage())
        if isinstance(error, aiohttp.ClientSSLError | aiohttp.ServerFingerprintMismatch):
            return AgentInvocationError(
                f"{host} could not prove who it is ({type(error).__name__}): check the address and the certificates",
                kind="certificate_refused",
                usage=Usage(),
            )
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return _not_reached(f"{host} did not take the connection within {self._patience.connect_s:g} s")
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return _not_reached(f"{host} cannot be reached: its name is not known here")
        if isinstance(error, aiohttp.ClientConnectorError):
            return _not_reached(f"{host} cannot be reached: {os.strerror(error.os_error.errno or errno.EIO)}")
        if isinstance(error, aiohttp.InvalidURL):
            problem = f"{host} is no address to connect to: check {self._address_setting}"
            return AgentInvocationError(problem, kind="connect_failed", usage=Usage())
        if isinstance(error, aiohttp.ClientError | OSError):
            problem = f"{host} broke off its answer or did not speak HTTP ({type(error).__name__})"
            return AgentInvocationError(problem, kind="connection_lost", retryable=True)
        return AgentInvocationError(f"{host} could not be asked ({type(error).__name__})", kind="client_error")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise AgentInvocationError("the connections to the models are closed", kind="closed", usage=Usage())
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
            connector=_QuietConnections(
                limit=connections,
                limit_per_host=connections,
                keepalive_timeout=_KEEPALIVE_S,
                ttl_dns_cache=60,
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect_s),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


class _QuietConnections(aiohttp.TCPConnector):
    """Uses a connection again only while nothing has come on it since its last reply.

    aiohttp looks whether it is still open, and would hand out bytes that came while it was idle as the next call's answer.
    """

    def __init__(self, *, limit: int, limit_per_host: int, keepalive_timeout: float, ttl_dns_cache: int) -> None:
        super().__init__(
            limit=limit,
            limit_per_host=limit_per_host,
            keepalive_timeout=keepalive_timeout,
            ttl_dns_cache=ttl_dns_cache,
        )
        self._used: WeakSet[asyncio.BaseProtocol] = WeakSet()

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """One on which nothing waits to be read. Raises `_SpokeFirstError` where something does on a new one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            if protocol is None:
                return connection
            is_new = protocol not in self._used
            # On a new TLS connection the tickets of its session may still wait, and they are no answer.
            looks = not (is_new and req.is_ssl())
            if not protocol.should_close and not (looks and _has_something_to_read(connection.transport)):
                self._used.add(protocol)
                return connection
            connection.close()
            if is_new:
                raise _SpokeFirstError


class _SpokeFirstError(aiohttp.ClientConnectionError):
    """The far end sent an answer before it was asked anything."""


def _has_something_to_read(transport: asyncio.BaseTransport | None) -> bool:
    """Whether bytes or the end of the connection wait in the kernel, where the loop has not come to read them yet."""
    known = None if transport is None else transport.get_extra_info("socket")
    if known is None:
        return False
    poll = select.poll()
    poll.register(known.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _came_too_early(data: bytes | io.BytesIO | None) -> bool:
    """Whether a reply came before its request had been handed over: it then belongs to another."""
    return isinstance(data, io.BytesIO) and not data.closed and data.tell() < len(data.getbuffer())


def _not_reached(problem: str) -> AgentInvocationError:
    return AgentInvocationError(problem, kind="connect_failed", retryable=True, usage=Usage())


async def _read_to_the_end(response: aiohttp.ClientResponse) -> None:
    """Wait a moment for the end of a reply that is known to be over, so that its connection can be used again."""
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            if await response.content.readany():
                response.close()
    except (TimeoutError, aiohttp.ClientError):
        response.close()


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
