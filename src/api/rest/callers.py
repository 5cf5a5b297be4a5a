"""Who calls, by API key, by a browser's session or from this machine, and what that lets them do and see."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from api.conclave import Conclave
from api.rest.problems import RequestRefusedError
from api.rest.sessions import Session, Sessions
from application.services.api_keys import ApiKey, Role

__all__ = [
    "TOKEN_HEADER",
    "Admin",
    "Caller",
    "Observer",
    "OpenConclave",
    "Operator",
    "end_of_session",
    "foreign_caller",
    "require_token",
    "session_of",
    "visitor",
]

TOKEN_HEADER = "X-CSRF-Token"  # noqa: S105 - its name

_LOCAL_HOST = re.compile(rb"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a request comes from; `name` is the key's, None for the local caller of a server without keys."""

    name: str | None
    role: Role

    @property
    def sees(self) -> str | None:
        """Whose deliberations this caller sees: those of one name, or with None everybody's."""
        return None if self.role is Role.ADMIN else self.name


async def open_conclave_of(request: Request) -> Conclave:
    """The service that this application is a door to."""
    conclave: Conclave = request.app.state.conclave
    return conclave


async def _observer(request: Request) -> Caller:
    return _caller(request, Role.OBSERVER)


async def _operator(request: Request) -> Caller:
    return _caller(request, Role.OPERATOR)


async def _admin(request: Request) -> Caller:
    return _caller(request, Role.ADMIN)


OpenConclave = Annotated[Conclave, Depends(open_conclave_of)]
Observer = Annotated[Caller, Depends(_observer)]
Operator = Annotated[Caller, Depends(_operator)]
Admin = Annotated[Caller, Depends(_admin)]


def _caller(request: Request, needed: Role) -> Caller:
    conclave: Conclave = request.app.state.conclave
    session = _speaking_session(request)
    if not conclave.keys:
        caller = Caller(None, Role.ADMIN)
    else:
        key = _key_of(request, session)
        if key is None:
            raise RequestRefusedError(
                "unauthenticated",
                "Send the header Authorization: Bearer SECRET with a secret that this server knows.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if not key.role.covers(needed):
            raise RequestRefusedError(
                "forbidden", f"This needs a key with the role {needed.value}; this one is {key.role.value}."
            )
        caller = Caller(key.name, key.role)
    if session is not None and request.method not in _SAFE_METHODS:
        # A browser sends the cookie by itself, whoever made it send the request; the token only a page of ours can add.
        require_token(request, session, request.headers.get(TOKEN_HEADER, ""))
    return caller


def session_of(request: Request) -> Session | None:
    """The session that the request's cookie names, if it lasts."""
    sessions: Sessions = request.app.state.sessions
    return sessions.among(request.cookies)


def end_of_session(request: Request) -> Callable[[], Awaitable[None]] | None:
    """What waits for the end of the session by which the request was let in; None where it was let in by something else."""
    conclave: Conclave = request.app.state.conclave
    sessions: Sessions = request.app.state.sessions
    session = _speaking_session(request) if conclave.keys else None
    return None if session is None else partial(sessions.over, session)


def require_token(request: Request, session: Session, token: str) -> None:
    """Raise `RequestRefusedError` (403) unless `token` is the session's."""
    sessions: Sessions = request.app.state.sessions
    if not sessions.knows(session, token):
        raise RequestRefusedError(
            "token-mismatch",
            f"A change by the session's cookie needs its token in the header {TOKEN_HEADER}; reload the page.",
        )


def visitor(request: Request) -> Caller | None:
    """Whoever looks at a page, None where nobody is signed in; refuses nobody."""
    conclave: Conclave = request.app.state.conclave
    if not conclave.keys:
        return Caller(None, Role.ADMIN)
    key = _key_of(request, _speaking_session(request))
    return None if key is None else Caller(key.name, key.role)


def _speaking_session(request: Request) -> Session | None:
    """The session that says who calls: none where the header Authorization does, whatever cookie comes with it."""
    return None if "authorization" in request.headers else session_of(request)


def _key_of(request: Request, session: Session | None) -> ApiKey | None:
    if session is not None:
        return session.key
    conclave: Conclave = request.app.state.conclave
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    return conclave.keys.find(secret.strip()) if scheme.lower() == "bearer" else None


def foreign_caller(scope: Scope) -> str | None:
    """Why a request to a server without keys does not come from this machine's own user, or None when it does.

    A web page can reach a loopback port: by a name of its own that resolves to it (so `Host` is checked), or openly across
    origins (so `Origin` and, where browsers send no origin, `Sec-Fetch-Site` are).
    """
    client = scope.get("client")
    if client is None or not _is_loopback(client[0]):
        return "This server has no keys, so it answers callers on its own machine alone."
    headers: dict[bytes, bytes] = dict(scope["headers"])
    host = headers.get(b"host", b"").strip().lower()
    if not _LOCAL_HOST.fullmatch(host):
        return "This server has no keys, so it answers to localhost, 127.0.0.1 and [::1] alone."
    origin = headers.get(b"origin")
    if origin is not None:
        same = origin.strip().lower().partition(b"://")[2] == host
        return None if same else "This server has no keys, so pages of other origins may not use it."
    if headers.get(b"sec-fetch-site") in {b"cross-site", b"same-site"} and not _opens_a_page(scope, headers):
        return "This server has no keys, so pages of other origins may not use it."
    return None


def _opens_a_page(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether someone follows a link to here, which lets the page that it stands on read and change nothing."""
    return (
        scope["method"] in {"GET", "HEAD"}
        and headers.get(b"sec-fetch-mode") == b"navigate"
        and headers.get(b"sec-fetch-dest") == b"document"
    )


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
