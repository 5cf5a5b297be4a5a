"""One HTTP exchange with a Conclave server: bounded, cancellable, and never following a redirect with the key."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from api.cli.event_stream import OversizedEventError, StreamEvent, read_events
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["MAX_REPLY_BYTES", "Address", "HttpExchange", "ServerRefusedError"]

MAX_REPLY_BYTES = 64 * 1024 * 1024
_MAX_LINE_BYTES = 1024 * 1024
_CONNECT_TIMEOUT_S = 5.0
_REPLY_TIMEOUT_S = 60.0
_WHOLE_REPLY_TIMEOUT_S = 120.0
# A stream is pinged every 15 s, so that after three silent ones there is nobody any more.
_STREAM_TIMEOUT_S = 45.0
_MAX_WAITING_EVENTS = 1000

_Result = TypeVar("_Result")


class ServerRefusedError(ConclaveError):
    """The server answered with an error (RFC 9457). `problem_slug` is the last part of the problem's type.

    `retry_after_s` is how many seconds it asked to wait, or None.
    """

    slug: ClassVar[str] = "server-refused"

    def __init__(
        self, message: str, *, http_status: int, problem_slug: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.problem_slug = problem_slug
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is: scheme, host, port, and the path that its calls stand under."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in an http or https URL. Raises `ConfigurationError`."""
        problem = "is not the http:// or https:// address of a server"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _bad_server(problem) from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise _bad_server(problem)
        if parts.username is not None or parts.password is not None:
            raise _bad_server("holds a name or a password, which would stand in the list of processes")
        if parts.query or parts.fragment or not url.isprintable() or " " in url or not url.isascii():
            raise _bad_server(problem)
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, default if port is None else port, parts.path.rstrip("/"))

    @property
    def keeps_secrets(self) -> bool:
        """Whether nobody between here and there can read along."""
        if self.scheme == "https" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def _bad_server(problem: str) -> ConfigurationError:
    return ConfigurationError(variable="--server", problem=problem, remedy="Give it as http://HOST:PORT.")


class _Wire:
    """A connection for one request. It can be cut from another thread, which wakes the one that waits for it with an error."""

    def __init__(self, address: Address, *, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        if address.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=_CONNECT_TIMEOUT_S, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(address.host, address.port, timeout=_CONNECT_TIMEOUT_S)

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], payload: bytes | None = None
    ) -> http.client.HTTPResponse:
        self._connection.connect()
        # Kept here, because the connection forgets its socket once a reply will be its last.
        self._socket = self._connection.sock
        self._socket.settimeout(self._timeout_s)
        kind = {} if payload is None else {"Content-Type": "application/json"}
        sent = {"Accept": "application/json", **kind, **headers}
        self._connection.request(method, self._address.path + path, body=payload, headers=sent)
        self._response = self._connection.getresponse()
        return self._response

    def abort(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A reply that is the connection's last holds the socket open by itself.
        if self._response is not None:
            self._response.close()
        self._connection.close()


class _End:
    """Follows the last event of a stream."""


@dataclass(frozen=True, slots=True)
class HttpExchange:
    """One request to that address and its answer, on a connection of its own, which a cancellation closes.

    Raises `DependencyUnavailableError` when the server cannot be reached, is silent, or does not answer as Conclave does, and
    `ServerRefusedError` for an answer that is an error.
    """

    address: Address
    headers: Mapping[str, str] = field(default_factory=dict)

    async def fetch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The JSON object that the server answers."""
        _, content = await self._exchange(method, path, body)
        return self._object(content)

    async def fetch_text(self, path: str, *, media_type: str) -> str:
        """The text of that media type that the server answers."""
        found, content = await self._exchange("GET", path, accept=media_type)
        if found.partition(";")[0].strip().lower() != media_type or len(content) > MAX_REPLY_BYTES:
            raise self._unavailable("it does not answer as Conclave does")
        with self._translated():
            return content.decode()

    async def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, accept: str = "application/json"
    ) -> tuple[str, bytes]:
        """The media type and the content of an answer that is no error."""
        wire = _Wire(self.address, timeout_s=_REPLY_TIMEOUT_S)
        payload = None if body is None else json.dumps(body, allow_nan=False).encode()

        def exchange() -> tuple[str, bytes]:
            with contextlib.closing(wire), self._translated():
                response = wire.ask(method, path, {**self.headers, "Accept": accept}, payload)
                content = response.read(MAX_REPLY_BYTES + 1)
            _refuse_errors(response, content)
            return response.getheader("Content-Type", ""), content

        with self._translated():
            async with asyncio.timeout(_WHOLE_REPLY_TIMEOUT_S):
                return await _in_thread(exchange, wire.abort)

    async def stream(self, path: str, *, last_event_id: int) -> AsyncGenerator[StreamEvent | None, None]:
        """The events that follow `last_event_id`, None for a sign of life; ends when the server ends the stream."""
        wire = _Wire(self.address, timeout_s=_STREAM_TIMEOUT_S)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[StreamEvent | _End | None] = asyncio.Queue()
        places = threading.Semaphore(_MAX_WAITING_EVENTS)

        def exchange() -> None:
            with contextlib.closing(wire), self._translated():
                headers = {**self.headers, "Accept": "text/event-stream", "Last-Event-ID": str(last_event_id)}
                response = wire.ask("GET", path, headers)
                if response.status != http.HTTPStatus.OK:
                    _refuse_errors(response, response.read(MAX_REPLY_BYTES + 1))
                for event in read_events(_lines(response)):
                    places.acquire()
                    loop.call_soon_threadsafe(waiting.put_nowait, event)

        reading = asyncio.create_task(_in_thread(exchange, wire.abort))
        # The thread hands over every event before its own end, so that this comes last.
        reading.add_done_callback(lambda _: waiting.put_nowait(_End()))
        try:
            while not isinstance(item := await waiting.get(), _End):
                places.release()
                yield item
            reading.result()
        finally:
            places.release(_MAX_WAITING_EVENTS)
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.exception()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError as error:
            raise self._unavailable(error.strerror or "it closed the connection") from error
        except (http.client.HTTPException, UnicodeDecodeError, OversizedEventError) as error:
            raise self._unavailable(f"its answer is not HTTP as Conclave speaks it ({type(error).__name__})") from error
        except TimeoutError as error:
            raise self._unavailable("it does not answer") from error
        except ssl.SSLError as error:
            raise self._unavailable(f"TLS failed: {error.reason or 'no reason given'}") from error
        except OSError as error:
            raise self._unavailable(error.strerror or type(error).__name__) from error

    def _object(self, content: bytes) -> Mapping[str, Any]:
        if len(content) > MAX_REPLY_BYTES:
            raise self._unavailable(f"its answer is longer than {MAX_REPLY_BYTES} bytes")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._unavailable("it does not answer as Conclave does")
        return document

    def _unavailable(self, problem: str) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the server {str(self.address)!r}",
            problem=problem,
            remedy="Check that it runs, and that --server names it.",
        )


def _refuse_errors(response: http.client.HTTPResponse, content: bytes) -> None:
    """Raise `ServerRefusedError` unless the status is a success."""
    status = response.status
    if http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
        return
    try:
        problem = json.loads(content)
    except (ValueError, RecursionError):
        problem = None
    fields: Mapping[str, Any] = problem if isinstance(problem, dict) else {}
    slug = str(fields.get("type", "")).rstrip("/").rpartition("/")[2].rpartition(":")[2]
    said = fields.get("detail") or fields.get("title") or response.reason or "no reason given"
    message = f"the server refused ({status}): {said}"
    if status < http.HTTPStatus.BAD_REQUEST:
        message = f"the server sends us elsewhere ({status}), which is not followed: name the right address"
    elif status in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}:
        message += " Put a key that may do this into CONCLAVE_API_KEY."
    bad_fields = fields.get("errors")
    if isinstance(bad_fields, list):
        found = [item for item in bad_fields if isinstance(item, dict)]
        named = "; ".join(f"{item.get('pointer', '')}: {item.get('detail') or item.get('message')}" for item in found)
        message = f"the server refused ({status}): {named}" if named else message
    raise ServerRefusedError(
        message, http_status=status, problem_slug=slug, retry_after_s=_seconds(response.getheader("Retry-After"))
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    while line := response.readline(_MAX_LINE_BYTES + 1):
        if len(line) > _MAX_LINE_BYTES:
            raise OversizedEventError(f"a line is longer than {_MAX_LINE_BYTES} bytes")
        yield line.decode().rstrip("\r\n")


async def _in_thread(work: Callable[[], _Result], abort: Callable[[], None]) -> _Result:
    """What `work` returns or raises. A cancellation aborts it and does not wait for its thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error there is a result, which may be None

    def run() -> None:
        try:
            outcome: tuple[_Result | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            outcome = (None, error)
        # A loop that is closed has nobody left to hear the outcome.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, *outcome)

    # A daemon, because a thread stuck in a system call must not keep the command from leaving.
    threading.Thread(target=run, name="conclave-http", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        abort()
        raise
