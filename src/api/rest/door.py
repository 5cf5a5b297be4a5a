"""The outermost layer of the application: what holds for every request and every answer, whatever it is about."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.callers import foreign_caller
from api.rest.framing import ambiguity, has_encoded_slash, in_origin_form
from api.rest.problems import INTERNAL, PROBLEMS, problem

__all__ = ["API_CSP", "LINGER_S", "Door"]

_logger = logging.getLogger(__name__)

API_CSP = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
LINGER_S = 5.0
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", API_CSP.encode()),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Door:
    """Lets in only whom it should, puts the security headers on every answer, and never leaks what broke inside."""

    def __init__(self, app: ASGIApp, *, local_only: bool, linger_s: float = LINGER_S) -> None:
        self._app = app
        self._local_only = local_only
        self._linger_s = linger_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, linger_s=self._linger_s)
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, exchange.receive, exchange.send)
            return
        scope = in_origin_form(scope)
        inner = {**scope, "method": "GET"} if exchange.is_head else scope
        try:
            await self._app(inner, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # Nothing cancels a request but a server that has waited for it long enough.
            if not exchange.started:
                late = problem("service-stopping", "The service stopped before there was an answer.")
                await late(scope, exchange.receive, exchange.send)
            raise
        except ClientDisconnect:
            _logger.debug("a caller left before its request was complete")
        except Exception:
            if exchange.started:
                raise
            _logger.exception("a request broke")
            broken = problem(INTERNAL, "It is logged here; trying again may help.")
            await broken(scope, exchange.receive, exchange.send)

    def _refusal(self, scope: Scope) -> Response | None:
        unclear = ambiguity(scope)
        if unclear is not None:
            return problem("malformed-request", unclear, headers={"Connection": "close"})
        reason = foreign_caller(scope) if self._local_only else None
        if reason is not None:
            return problem("foreign-caller", reason)
        if has_encoded_slash(scope):
            return problem("not-found", "There is nothing at this address; no name here holds a slash.")
        return None


class _Exchange:
    """One request and its answer, watched."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, linger_s: float) -> None:
        headers = dict(scope["headers"])
        self.is_head = scope["method"] == "HEAD"
        self.started = False
        self._receive = receive
        self._send = send
        self._linger_s = linger_s
        self._unread = b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""
        self._done = False
        self._late = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            self._late = message["status"] == PROBLEMS["body-timeout"].status
            self._add_headers(message)
            await self._send(message)
            return
        if self._done:
            return
        body = b"" if self.is_head else message.get("body", b"")
        more = message.get("more_body", False) and not self.is_head
        if not more and self._unread and not self._late:
            # A connection that is closed with unread input is reset, and a reset can overtake the answer: the caller would
            # never learn why. So the answer goes out first, the rest of the body is thrown away, and then comes the end.
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            body = b""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    while self._unread:
                        await self.receive()
        self._done = not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _add_headers(self, message: MutableMapping[str, Any]) -> None:
        headers = list(message.get("headers", ()))
        present = {name.lower() for name, _ in headers}
        headers += [pair for pair in _ALWAYS if pair[0] not in present]
        if self._unread and b"connection" not in present:
            headers.append((b"connection", b"close"))
        message["headers"] = headers
