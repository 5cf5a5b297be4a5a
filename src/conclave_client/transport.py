"""What both flavours tell httpx2, and what they make of what it says."""

from __future__ import annotations

import inspect
import ssl
from collections.abc import Callable
from functools import update_wrapper
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar

from conclave_client.address import Address, ApiKey
from conclave_client.answer import Head
from conclave_client.errors import UnusableArgumentError
from conclave_client.exchange import Lost, Open

if TYPE_CHECKING:
    from types import ModuleType

    import httpx2

__all__ = ["as_method", "client_options", "head_of", "load_httpx2", "loss", "request_options", "server_of"]

_Method = TypeVar("_Method", bound=Callable[..., Any])

_CONNECT_TIMEOUT_S = 5.0
_MOST_CONNECTIONS = 100
_KEPT_CONNECTIONS = 10
# The server closes an idle connection after 15 s: one that is used no later is not closed while a request is on its way.
_KEPT_S = 10.0
_MOST_CHARACTERS = 200


def load_httpx2() -> ModuleType:
    """The HTTP library, without which the documents, the calls and the webhooks can still be used."""
    try:
        import httpx2
    except ModuleNotFoundError as error:
        if error.name != "httpx2":
            raise
        raise ModuleNotFoundError(
            "conclave_client speaks HTTP with httpx2, which is not installed: install archon-conclave[client]",
            name=error.name,
        ) from None
    return httpx2


def server_of(url: str, api_key: str | None, *, allow_plaintext: bool) -> tuple[Address, ApiKey | None]:
    """The address and the key. Raises `UnusableArgumentError`, also where others on the way could read the key."""
    address = Address.parse(url)
    key = None if api_key is None else ApiKey(api_key)
    if key is not None and not address.keeps_secrets and not allow_plaintext:
        problem = "would travel unencrypted: use https, or allow_plaintext=True where nobody else is on the way"
        raise UnusableArgumentError("api_key", problem)
    return address, key


def client_options(address: Address, ssl_context: ssl.SSLContext | None) -> dict[str, Any]:
    """How a client of httpx2 is made: it follows nothing, keeps no cookie, and asks no proxy for this machine."""
    httpx2 = load_httpx2()
    return {
        "verify": True if ssl_context is None else ssl_context,
        "trust_env": not address.is_local,
        "follow_redirects": False,
        "cookies": CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        "limits": httpx2.Limits(
            max_connections=_MOST_CONNECTIONS,
            max_keepalive_connections=_KEPT_CONNECTIONS,
            keepalive_expiry=_KEPT_S,
        ),
    }


def request_options(step: Open) -> dict[str, Any]:
    """The request that a step wants, as httpx2 takes it."""
    timeout = load_httpx2().Timeout(step.timeout_s, connect=min(_CONNECT_TIMEOUT_S, step.timeout_s))
    return {
        "method": step.method,
        "url": step.url,
        "headers": dict(step.headers),
        "content": step.body,
        "timeout": timeout,
    }


def head_of(response: httpx2.Response) -> Head:
    """The status and the headers of an answer; of one that comes twice, both with a comma between."""
    return Head(response.status_code, {name.lower(): value for name, value in response.headers.items()})


def loss(error: httpx2.TransportError) -> Lost:
    """What became of a connection. Messages of the library are repeated only where it never stood: they hold no header then."""
    httpx2 = load_httpx2()
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.UnsupportedProtocol):
        return Lost(f"cannot be reached ({str(error)[:_MOST_CHARACTERS]})", sent=False)
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Lost("cannot be reached in time", sent=False)
    if isinstance(error, httpx2.TimeoutException):
        return Lost("does not answer in time", sent=True)
    if isinstance(error, httpx2.ProtocolError):
        return Lost("left before its answer was whole, or speaks no HTTP", sent=True)
    return Lost("closed the connection", sent=True)


def as_method(method: _Method, call: Callable[..., Any]) -> _Method:
    """`method` with the name, the explanation and the parameters of `call`."""
    update_wrapper(method, call)
    described = inspect.signature(call)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    # The parameters of a wrapped function would be taken as they are, and the first one for `self`.
    method.__signature__ = described.replace(  # type: ignore[attr-defined]
        parameters=[self, *described.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return method
