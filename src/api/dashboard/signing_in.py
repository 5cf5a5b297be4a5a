"""The way in and out of the room: a key once, then a session, until sign-out or its end."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from api.conclave import Conclave
from api.dashboard.rendering import give_cookie, render
from api.rest.bodies import read_bytes
from api.rest.callers import require_token, session_of, visitor
from api.rest.json_response import JsonResponse
from api.rest.problems import RequestRefusedError
from api.rest.sessions import Sessions

__all__ = ["Attempts", "add_signing_in", "own_path"]

_FORM_BYTES = 8 * 1024
_FIELDS = 16
_NEXT_CHARACTERS = 2048
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")
_WRONG = (
    "That key is not known here. Check that it is whole: a key is what follows the second colon in CONCLAVE_API_KEYS."
)


def add_signing_in(app: FastAPI) -> None:
    """Put the sign-in, the sign-out and the session's token into `app`."""
    app.state.attempts = Attempts()
    for path, method, answer in (
        ("/sign-in", "GET", sign_in_page),
        ("/sign-in", "POST", sign_in),
        ("/sign-out", "POST", sign_out),
        ("/session", "GET", session),
    ):
        app.add_api_route(path, answer, methods=[method], include_in_schema=False, response_model=None)


class Attempts:
    """Counts wrong keys by address (an IPv6 network of 64 bits is one), and lets nobody try more than `most` in `within_s` seconds.

    Remembers `addresses` of them, the latest; right keys cost nothing, but are not even looked at while too many were wrong.
    """

    def __init__(
        self,
        *,
        most: int = 10,
        within_s: float = 60.0,
        addresses: int = 4096,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._within_s = within_s
        self._addresses = addresses
        self._now = now
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait before it may try again; 0 when it may now."""
        wrong = self._wrong.get(_network(address))
        if wrong is None or len(wrong) < self._most:
            return 0.0
        return max(0.0, wrong[0] + self._within_s - self._now())

    def note_wrong(self, address: str) -> None:
        """One more wrong key from there."""
        network = _network(address)
        self._wrong.setdefault(network, deque(maxlen=self._most)).append(self._now())
        self._wrong.move_to_end(network)
        while len(self._wrong) > self._addresses:
            self._wrong.popitem(last=False)


def own_path(text: str) -> str:
    """`text` when it is a path of this server, with or without a query; else `/`.

    What browsers read as another host is none: `//host`, a backslash, and characters that they drop before they look.
    """
    if len(text) > _NEXT_CHARACTERS or not _OWN_PATH.fullmatch(text) or text.startswith(("/sign-in", "/sign-out")):
        return "/"
    return text


async def sign_in_page(request: Request) -> Response:
    """Where a key is given; whoever needs none goes on at once, but for who wants to come in by another one."""
    conclave: Conclave = request.app.state.conclave
    asked = request.query_params
    target = own_path(asked.get("next", "/"))
    refused = asked.get("refused") == "key"
    if visitor(request) is not None and not (conclave.keys and (refused or "other" in asked)):
        return RedirectResponse(target, status_code=303)
    return _page(request, target, problem=_WRONG if refused else "", ended="ended" in asked)


async def sign_in(request: Request) -> Response:
    """A session for a key that is known. Raises `RequestRefusedError` (403, 408, 413)."""
    _require_own_page(request)
    conclave: Conclave = request.app.state.conclave
    sessions: Sessions = request.app.state.sessions
    attempts: Attempts = request.app.state.attempts
    form = await _form(request)
    target = own_path(form.get("next", "/"))
    if not conclave.keys:
        return RedirectResponse(target, status_code=303)
    address = request.client.host if request.client is not None else ""
    if wait_s := attempts.wait_s(address):
        problem = f"Too many wrong keys came from your address. Try again in {int(wait_s) + 1} seconds."
        page = _page(request, target, problem=problem, status_code=429)
        page.headers["Retry-After"] = str(int(wait_s) + 1)
        return page
    key = conclave.keys.find(form.get("key", "").strip())
    if key is None:
        attempts.note_wrong(address)
        return RedirectResponse(f"/sign-in?refused=key&next={quote(target, safe='/')}", status_code=303)
    earlier = session_of(request)
    if earlier is not None:
        sessions.end(earlier)
    _, cookie = sessions.open(key)
    response = RedirectResponse(target, status_code=303)
    give_cookie(request, response, cookie)
    return response


async def sign_out(request: Request) -> Response:
    """The end of the session, of which no copy of its cookie is of any use from now on. Raises `RequestRefusedError` (403)."""
    sessions: Sessions = request.app.state.sessions
    form = await _form(request)
    session = session_of(request)
    if session is not None:
        require_token(request, session, form.get("csrf_token", ""))
        sessions.end(session)
    response = RedirectResponse("/sign-in", status_code=303)
    response.delete_cookie(sessions.cookie, path="/", httponly=True, samesite="strict")
    return response


async def session(request: Request) -> Response:
    """Who is signed in here, and the token of changes, for pages whose own has become outdated; empty texts where nobody is."""
    caller = visitor(request)
    conclave: Conclave = request.app.state.conclave
    sessions: Sessions = request.app.state.sessions
    found, cookie = session_of(request), None
    if found is None and not conclave.keys:
        found, cookie = sessions.open()
    response = JsonResponse(
        {
            "name": (caller.name or "") if caller is not None else "",
            "role": caller.role.value if caller is not None else "",
            "csrf_token": "" if found is None else sessions.token(found),
        }
    )
    if cookie is not None:
        give_cookie(request, response, cookie)
    return response


def _page(request: Request, target: str, *, problem: str = "", ended: bool = False, status_code: int = 200) -> Response:
    return render(
        request,
        "sign_in.html",
        title="Sign in",
        status_code=status_code,
        next=target,
        problem=problem,
        ended=ended,
    )


def _require_own_page(request: Request) -> None:
    """Keep a page elsewhere from signing a browser in under a key of its own choice. No browser leaves out both headers."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_own = site == "same-origin"
    else:
        host = request.headers.get("host", "").strip().lower()
        is_own = origin is None or origin.strip().lower().partition("://")[2] == host
    if not is_own:
        raise RequestRefusedError("foreign-page", "Open this server's own sign-in page, and sign in there.")


async def _form(request: Request) -> dict[str, str]:
    """The fields of an urlencoded body, the last of each name. Raises `RequestRefusedError` (408, 413, 422)."""
    body = await read_bytes(request, max_bytes=_FORM_BYTES)
    try:
        fields = parse_qs(body.decode("utf-8", errors="replace"), keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        raise RequestRefusedError("invalid-request", f"At most {_FIELDS} fields are taken.") from None
    return {name: values[-1] for name, values in fields.items()}


def _network(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
    return str(found)
