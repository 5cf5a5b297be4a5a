"""Runs an application on a port until it is told to stop, and then stops in an order that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from api.conclave import Conclave
from api.dashboard.rendering import prepare_templates
from api.rest.application import create_app
from api.rest.connection import BoundedConnection
from domain.errors.conclave_error import ConclaveError
from domain.errors.configuration import ConfigurationError

__all__ = ["Front", "HttpServer", "RestServer", "Stoppable", "listening", "run_until_signal", "serve"]

_logger = logging.getLogger(__name__)

_KEEP_ALIVE_S = 15
_HEAD_BYTES = 32 * 1024
_CERT_VARIABLE, _KEY_VARIABLE = "CONCLAVE_TLS_CERT_FILE", "CONCLAVE_TLS_KEY_FILE"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class Front:
    """What stands between callers and the port: TLS, where both of its files are given, and proxies.

    `trusted_proxies` are the addresses and networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed (`*`: anybody's);
    without any, nobody's are.
    """

    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    trusted_proxies: tuple[str, ...] = ()

    def tls(self) -> ssl.SSLContext | None:
        """TLS 1.2 and later with that certificate, or None. Raises `ConfigurationError` naming the file that cannot be used."""
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        for variable, file in ((_CERT_VARIABLE, self.tls_cert_file), (_KEY_VARIABLE, self.tls_key_file)):
            try:
                file.read_bytes()
            except OSError as error:
                raise ConfigurationError(
                    variable=variable,
                    problem=f"{str(file)!r} cannot be read ({error.strerror})",
                    remedy="Name a PEM file that this user may read.",
                ) from None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without an answer to give, OpenSSL would ask a terminal for the passphrase.
            context.load_cert_chain(self.tls_cert_file, self.tls_key_file, password=_no_passphrase)
        except (ssl.SSLError, _PassphraseWantedError) as error:
            raise ConfigurationError(
                variable=_KEY_VARIABLE if isinstance(error, _PassphraseWantedError) else _CERT_VARIABLE,
                problem=f"{str(self.tls_cert_file)!r} and {str(self.tls_key_file)!r} make no certificate and its key ({error})",
                remedy="Give two PEM files that belong together, the key without a passphrase.",
            ) from None
        return context


class _PassphraseWantedError(Exception):
    """The key is encrypted."""

    def __init__(self) -> None:
        super().__init__("the key wants a passphrase")


def _no_passphrase() -> str:
    raise _PassphraseWantedError


class HttpServer:
    """Serves one application on a port. Once stopped, it lets answers that are under way be finished for `hang_up_s` seconds."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        local_only: bool,
        hang_up_s: int = 3,
        front: Front | None = None,
    ) -> None:
        """Bind the port. Raises `ConfigurationError` when it is taken, or not on loopback although it is `local_only`."""
        front = front if front is not None else Front()
        tls = front.tls()
        self._scheme = "http" if tls is None else "https"
        self._sockets = _bind(host, port, local_only=local_only)
        self._stopping: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=bool(front.trusted_proxies),
            # Never left to the vendor, who would read the environment.
            forwarded_allow_ips=["*"] if "*" in front.trusted_proxies else list(front.trusted_proxies),
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=hang_up_s,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        self._server = _Server(config)

    @property
    def urls(self) -> tuple[str, ...]:
        """Where it listens."""
        return tuple(_url(bound, self._scheme) for bound in self._sockets)

    async def run(self, *, on_listening: Callable[[tuple[str, ...]], None] | None = None) -> None:
        """Serve until `stop`; `on_listening` is called with the addresses once requests are answered."""
        self._server.on_started = lambda: on_listening(self.urls) if on_listening is not None else None
        try:
            await self._server.serve(sockets=self._sockets)
        finally:
            self.close()
            if self._stopping is not None:
                await self._stopping

    def close(self) -> None:
        """Let go of the port; `run` does so by itself."""
        for bound in self._sockets:
            bound.close()

    def stop(self) -> None:
        """Begin to stop; the second time, hang up on everybody."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="http-server-stop")
        else:
            self._server.should_exit = True
            self._server.force_exit = True

    async def _stop(self) -> None:
        _logger.info("stopping: no new work is taken")
        try:
            await self._wind_up()
        except Exception:
            # A store that is away must not keep the process alive: what could not be marked now is marked at the next start.
            _logger.exception("not everything could be brought to its end")
        finally:
            self._server.should_exit = True

    async def _wind_up(self) -> None:
        """End the work behind the application while requests are still answered."""


class RestServer(HttpServer):
    """Serves one open Conclave. Once stopped, it first refuses new work and ends every stream, and only then hangs up.

    `drain_s` is how long running deliberations may go on after that, and how long they then have to end as interrupted;
    `hang_up_s` how long answers that are under way get. Whatever hangs, the whole takes less than `2 * drain_s + hang_up_s + 3`
    seconds.
    """

    def __init__(
        self,
        conclave: Conclave,
        *,
        host: str = "127.0.0.1",
        port: int = 8000,
        drain_s: float = 5.0,
        hang_up_s: int = 3,
        front: Front | None = None,
    ) -> None:
        """Bind the port. Raises `ConfigurationError` when it is taken, or not on loopback while there are no keys."""
        self._app = create_app(conclave)
        super().__init__(
            self._app,
            host=host,
            port=port,
            local_only=not conclave.keys,
            hang_up_s=hang_up_s,
            front=front,
        )
        self._conclave = conclave
        self._drain_s = drain_s

    async def run(self, *, on_listening: Callable[[tuple[str, ...]], None] | None = None) -> None:
        """As `HttpServer.run`; the room is ready for its first visitor before anybody can be one."""
        prepare_templates(self._app)
        await self._read_once()
        await super().run(on_listening=on_listening)

    async def _read_once(self) -> None:
        """Read the newest deliberation, so that no visitor waits for what a first reading has to prepare: a third of a first search."""
        try:
            await self._conclave.deliberations.page(status=None, key_name=None, limit=1, cursor=None)
        except ConclaveError as error:
            _logger.debug("the newest deliberation cannot be read, as whoever asks for it is told: %s", error)

    async def _wind_up(self) -> None:
        """Take no more work while still answering, so that whoever asks learns of it."""
        async with asyncio.timeout(2 * self._drain_s + 2):
            await asyncio.gather(self._conclave.deliberations.stop(drain_s=self._drain_s), self._conclave.runs.stop())


class _Server(uvicorn.Server):
    """Leaves signals to whoever runs it: the inherited way kills the process before its database is closed."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.on_started: Callable[[], None] = lambda: None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets=sockets)
        self.on_started()


async def serve(
    conclave: Conclave,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    drain_s: float = 5.0,
    front: Front | None = None,
    on_listening: Callable[[tuple[str, ...]], None] | None = None,
) -> signal.Signals | None:
    """Serve until SIGTERM or SIGINT, and return which one it was; a second signal hangs up on everybody.

    Returns within 15 s of the first signal, also with streams open and agents hanging. `conclave` stays open: whoever opened it
    closes it. Raises `ConfigurationError` when the port is taken, or not on loopback while there are no keys.
    """
    server = RestServer(conclave, host=host, port=port, drain_s=drain_s, front=front)
    return await run_until_signal(server, on_listening=on_listening)


@contextlib.asynccontextmanager
async def listening(server: HttpServer) -> AsyncIterator[str]:
    """Within it `server` answers, at the address that is yielded; on the way out it is stopped. Raises what kept it from answering."""
    begun = asyncio.Event()
    running = asyncio.create_task(server.run(on_listening=lambda _urls: begun.set()), name="http-server")
    waiting = asyncio.create_task(begun.wait())
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if begun.is_set():
            yield server.urls[0]
    finally:
        waiting.cancel()
        if not running.done():
            server.stop()
        await running


class Stoppable(Protocol):
    """What runs until it is stopped."""

    async def run(self, *, on_listening: Callable[[tuple[str, ...]], None] | None = None) -> None:
        """Run; `on_listening` is called once it does, with the addresses at which it can be reached."""
        ...

    def stop(self) -> None:
        """Begin to stop, without losing anything; the second time, at once."""
        ...


async def run_until_signal(
    server: Stoppable, *, on_listening: Callable[[tuple[str, ...]], None] | None = None
) -> signal.Signals | None:
    """Run `server` until SIGTERM or SIGINT, and return which one it was; a second signal hangs up on everybody."""
    received: list[signal.Signals] = []

    def take(number: signal.Signals) -> None:
        received.append(number)
        server.stop()

    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, take, number)
    try:
        await server.run(on_listening=on_listening)
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
    return received[0] if received else None


def _bind(host: str, port: int, *, local_only: bool) -> list[socket.socket]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            variable="--host", problem=f"{host!r} is no address of this machine ({error})", remedy="Use 127.0.0.1."
        ) from None
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    if local_only and not all(ipaddress.ip_address(address[0]).is_loopback for _, address in addresses):
        raise ConfigurationError(
            variable="--host",
            problem=f"{host!r} can be reached from other machines, and no key protects it",
            remedy="Set CONCLAVE_API_KEYS=name:role:secret, or use 127.0.0.1.",
        )
    bound: list[socket.socket] = []
    try:
        for family, address in addresses[:1] if port == 0 else addresses:
            # The event loop turns Nagle's algorithm off, without which answers wait 40 ms, only where the protocol is named.
            listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            bound.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
    except OSError as error:
        for listener in bound:
            listener.close()
        raise ConfigurationError(
            variable="--port",
            problem=f"{host}:{port} cannot be listened on ({error.strerror})",
            remedy="Choose another.",
        ) from None
    return bound


def _url(bound: socket.socket, scheme: str) -> str:
    address, port = bound.getsockname()[:2]
    return f"{scheme}://[{address}]:{port}" if bound.family == socket.AF_INET6 else f"{scheme}://{address}:{port}"
