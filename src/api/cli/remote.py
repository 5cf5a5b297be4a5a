"""The deliberations of a server, over its REST, as the command line uses them with --server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from http.client import IncompleteRead
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from api.cli.http_exchange import Address, HttpExchange, ServerRefusedError
from api.cli.terminal import complain
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.event import TERMINAL_EVENTS

__all__ = ["RemoteDeliberations", "exchange_with"]

_SUBMIT_PAUSES_S = (0.2, 0.5, 1.0)
_FOLLOW_PAUSES_S = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0)
_MAX_OUTPUT_PAGES = 100
# The connection stood, so that the request may have been accepted without our hearing of it.
_BROKEN = (ConnectionResetError, BrokenPipeError, IncompleteRead)
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_STILL_BEING_ACCEPTED = 409


def exchange_with(url: str, *, key: str | None) -> HttpExchange:
    """Exchanges with that server as the bearer of `key`. Raises `ConfigurationError`; complains where the key can be read along."""
    address = Address.parse(url)
    if key and not address.keeps_secrets:
        complain(f"the key in CONCLAVE_API_KEY travels to {address.host} unencrypted: use https")
    return HttpExchange(address, _headers(key))


class RemoteDeliberations:
    """The deliberations that a server shows to the bearer of `key`.

    A lost connection loses nothing: the same request is submitted under the same random `Idempotency-Key`, and events go on
    exactly after the last one that arrived. Raises `DependencyUnavailableError` when the server stays away, and
    `ServerRefusedError` for what it refuses. `pause` waits that many seconds.
    """

    def __init__(
        self, url: str, *, key: str | None = None, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self.address = Address.parse(url)
        self._pause = pause
        self._headers = _headers(key)

    @property
    def notices(self) -> Sequence[str]:
        """None: the documents say who answered."""
        return ()

    @property
    def sends_key_in_the_clear(self) -> bool:
        """Whether somebody between here and the server could read the key."""
        return "Authorization" in self._headers and not self.address.keeps_secrets

    async def submit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Accept it once, however often the connection breaks."""
        exchange = HttpExchange(self.address, {**self._headers, "Idempotency-Key": uuid4().hex})
        reached = False
        for pause in _SUBMIT_PAUSES_S:
            try:
                return self._deliberation(await exchange.fetch("POST", "/v1/deliberations", body))
            except ServerRefusedError as error:
                if error.http_status != _STILL_BEING_ACCEPTED:
                    raise
                reached = True
            except DependencyUnavailableError as error:
                if not reached and not isinstance(error.__cause__, _BROKEN):
                    raise
                reached = True
            await self._pause(pause)
        return self._deliberation(await exchange.fetch("POST", "/v1/deliberations", body))

    async def get(self, deliberation_id: str) -> Mapping[str, Any]:
        """The deliberation as it stands."""
        return self._deliberation(await self._fetch("GET", _path(deliberation_id)))

    async def page(
        self,
        *,
        status: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Mapping[str, str] | None = None,
    ) -> Mapping[str, Any]:
        """One page, newest first."""
        wanted = {"status": status, "limit": str(limit), "cursor": cursor, "origin": origin, **(search or {})}
        query = urlencode({name: value for name, value in wanted.items() if value is not None})
        page = await self._fetch("GET", f"/v1/deliberations?{query}")
        topics = {"topics": page["topics"]} if isinstance(page.get("topics"), dict) else {}
        return {"items": self._items(page), "next_cursor": page.get("next_cursor"), **topics}

    async def outputs(self, deliberation_id: str) -> Sequence[Mapping[str, Any]]:
        """Every page of the outputs."""
        items: list[Mapping[str, Any]] = []
        cursor: str | None = None
        for _ in range(_MAX_OUTPUT_PAGES):
            query = "" if cursor is None else f"?{urlencode({'cursor': cursor})}"
            page = await self._fetch("GET", f"{_path(deliberation_id)}/outputs{query}")
            items += self._items(page)
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return items

    async def minutes(self, deliberation_id: str) -> str:
        """The minutes that the server writes."""
        exchange = HttpExchange(self.address, self._headers)
        return await exchange.fetch_text(f"{_path(deliberation_id)}/minutes", media_type="text/markdown")

    async def recount(self, deliberation_id: str, rule: Mapping[str, Any]) -> Mapping[str, Any]:
        """Counted and recorded there."""
        return await self._fetch("POST", f"{_path(deliberation_id)}/recount", {"rule": dict(rule)})

    async def resolve(self, deliberation_id: str, answer: object) -> Mapping[str, Any]:
        """Scored and recorded there."""
        return await self._fetch("POST", f"{_path(deliberation_id)}/resolution", {"answer": answer})

    async def track_record(self) -> Mapping[str, Any]:
        """The record of the bearer of the key."""
        return await self._fetch("GET", "/v1/track-record")

    async def bundle(self, deliberation_id: str) -> Mapping[str, Any]:
        """The bundle that the server makes."""
        return await self._fetch("GET", f"{_path(deliberation_id)}/bundle")

    async def checkpoint(self) -> str:
        """The checkpoint that the server signs."""
        exchange = HttpExchange(self.address, self._headers)
        return await exchange.fetch_text("/v1/witness/checkpoint", media_type="text/plain")

    async def cancel(self, deliberation_id: str) -> Mapping[str, Any]:
        """Ask for its end."""
        return self._deliberation(await self._fetch("POST", f"{_path(deliberation_id)}/cancel"))

    async def events(self, deliberation_id: str) -> AsyncGenerator[Mapping[str, Any] | None, None]:
        """Every event once and in order, over as many connections as it takes."""
        last, failures = 0, 0
        while True:
            lost: Exception | None = None
            pings = 0
            exchange = HttpExchange(self.address, self._headers)
            stream = exchange.stream(f"{_path(deliberation_id)}/events", last_event_id=last)
            try:
                async with aclosing(stream):
                    async for item in stream:
                        if item is None:
                            pings += 1
                            # A second ping means that the connection held; one may come with every connection.
                            failures = 0 if pings > 1 else failures
                            yield None
                            continue
                        event = self._event(item.data)
                        if event["sequence"] <= last:
                            continue
                        last, failures = event["sequence"], 0
                        yield event
                        if event["type"] in TERMINAL_EVENTS:
                            return
            except DependencyUnavailableError as error:
                lost = error
            except ServerRefusedError as error:
                if error.http_status not in _TRY_AGAIN:
                    raise
                lost = error
            if failures == len(_FOLLOW_PAUSES_S):
                raise DependencyUnavailableError(
                    dependency=f"the server {str(self.address)!r}",
                    problem="the events of a deliberation that runs there cannot be read any more",
                    remedy=f"See how it went on with: conclave show {deliberation_id} --server {self.address}",
                ) from lost
            await self._pause(_FOLLOW_PAUSES_S[failures])
            failures += 1

    def _deliberation(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        if not isinstance(document.get("id"), str) or not isinstance(document.get("status"), str):
            raise self._foreign()
        return document

    def _items(self, page: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        items = page.get("items")
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._foreign()
        return items

    def _event(self, data: str) -> Mapping[str, Any]:
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict) or type(event.get("sequence")) is not int or "type" not in event:
            raise self._foreign()
        return event

    def _foreign(self) -> DependencyUnavailableError:
        return DependencyUnavailableError(
            dependency=f"the server {str(self.address)!r}",
            problem="it does not answer as Conclave does",
            remedy="Check that --server names a Conclave server.",
        )

    async def _fetch(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return await HttpExchange(self.address, self._headers).fetch(method, path, body)


def _path(deliberation_id: str) -> str:
    return f"/v1/deliberations/{quote(deliberation_id, safe='')}"


def _headers(key: str | None) -> dict[str, str]:
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            variable="CONCLAVE_API_KEY",
            problem="holds a character that no header can carry",
            remedy="Set it to the secret of one of the server's CONCLAVE_API_KEYS.",
        )
    return {"Authorization": f"Bearer {key}"}
