"""Server-sent events: those of a deliberation or a run as they are committed, over a bounded number of open streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.documents import event_document
from api.rest.json_response import encode
from api.rest.problems import RequestRefusedError
from domain.errors.deliberation import FieldProblem
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["MAX_STREAMS", "PING_S", "SIGNED_OUT", "EventStream", "Reader", "StreamPlaces", "last_event_id", "reading"]

_logger = logging.getLogger(__name__)

MAX_STREAMS = 100
PING_S = 15.0
_RETRY_MS = 1000
_LAST_SEQUENCE = 2**31 - 1


class StreamPlaces:
    """At most `limit` streams are open at a time; the next one is refused, never kept waiting."""

    def __init__(self, limit: int = MAX_STREAMS) -> None:
        self._limit = limit
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Raises `RequestRefusedError` (503) when none is free."""
        if self.taken >= self._limit:
            raise RequestRefusedError(
                "too-many-streams", f"{self._limit} event streams are open, which is all there may be."
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


SIGNED_OUT = b"event: signed-out\ndata: {}\n\n"
"""The last that a reader is told whose session has ended; it is no event of what was followed and has no `id`."""

_TO_BE_CONTINUED = b": not the end: come back with the Last-Event-ID that you saw last\n\n"


class _Event(Protocol):
    @property
    def sequence(self) -> int: ...
    @property
    def type(self) -> str: ...
    @property
    def is_terminal(self) -> bool: ...


class EventStream(Response):
    """`text/event-stream` (HTML, section 9.2) of events: `id` is the sequence, `event` the type, `data` the document.

    A comment every `PING_S` seconds of silence keeps the connection alive. Ends when `events` does, within a second of the reader's
    leaving, or, with `SIGNED_OUT`, of the return of `until`. The last comment tells who should come back that it was not the end:
    neither after the terminal event, nor where `had_ended` says that what is followed was over before and `events` gave all that it
    had.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[_Event | None, None],
        *,
        places: StreamPlaces,
        document: Callable[[Any], dict[str, Any]] = event_document,
        had_ended: bool = False,
        until: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._places = places
        self._document = document
        self._had_ended = had_ended
        self._until = until

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Stream to the end (ASGI)."""
        async with aclosing(self._events):
            with self._places.place(), reading(receive, self._until) as reader:
                await self._stream(send, reader)

    async def _stream(self, send: Send, reader: Reader) -> None:
        now = asyncio.get_running_loop().time
        has_ended = False
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send(_chunk(b"retry: %d\n\n" % _RETRY_MS))
        spoken = now()
        try:
            async for event in self._events:
                if reader.is_over():
                    break
                if event is not None:
                    await send(_chunk(_frame(event, self._document(event))))
                    has_ended = event.is_terminal
                    spoken = now()
                elif now() - spoken >= PING_S:
                    await send(_chunk(b": ping\n\n"))
                    spoken = now()
            else:
                has_ended = has_ended or self._had_ended
        except DependencyUnavailableError as error:
            # The reader comes back with the last id it saw, and by then the store may have too.
            _logger.warning("an event stream was cut: %s", error)
        if not has_ended:
            await send(_chunk(SIGNED_OUT if reader.is_signed_out() else _TO_BE_CONTINUED))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Reader:
    """Who reads a stream; `wake` is set once it reads no more, or may not."""

    def __init__(self, leaving: asyncio.Future[None], signing_out: asyncio.Future[None] | None) -> None:
        self.wake = asyncio.Event()
        self._leaving = leaving
        self._signing_out = signing_out
        for end in (leaving, signing_out):
            if end is not None:
                end.add_done_callback(lambda _: self.wake.set())

    def is_signed_out(self) -> bool:
        """Whether the session has ended by which it was let in."""
        return self._signing_out is not None and self._signing_out.done()

    def is_over(self) -> bool:
        """Whether it has left, or is signed out."""
        return self._leaving.done() or self.is_signed_out()


@contextmanager
def reading(receive: Receive, until: Callable[[], Awaitable[None]] | None) -> Iterator[Reader]:
    """Within it, whoever is at the other end of `receive`, and signed out once `until` has returned; without that, never."""
    leaving = asyncio.ensure_future(_wait_until_gone(receive))
    signing_out = None if until is None else asyncio.ensure_future(until())
    try:
        yield Reader(leaving, signing_out)
    finally:
        leaving.cancel()
        if signing_out is not None:
            signing_out.cancel()


def last_event_id(request: Request) -> int:
    """The sequence after which to resume, 0 without the header. Raises `RequestRefusedError` (422) when it is no sequence number."""
    value = request.headers.get("last-event-id", "").strip()
    if not value:
        return 0
    if not (value.isascii() and value.isdecimal()) or len(value) > 10 or int(value) > _LAST_SEQUENCE:
        found = FieldProblem("/header/last-event-id", "must be the sequence number of an event")
        raise RequestRefusedError.of("header", [found])
    return int(value)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _frame(event: _Event, document: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.sequence, event.type.encode(), encode(document))


def _chunk(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}
