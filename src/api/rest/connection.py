"""One HTTP connection that cannot be held open for nothing: bounded in number, in silence and in unread answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from api.rest.door import API_CSP
from api.rest.json_response import encode
from api.rest.problems import PROBLEMS, problem_document

__all__ = ["HEADER_TIMEOUT_S", "MAX_CONNECTIONS", "STALL_TIMEOUT_S", "BoundedConnection"]

MAX_CONNECTIONS = 512
HEADER_TIMEOUT_S = 15.0
STALL_TIMEOUT_S = 30.0
# Within the time that answers under way get once the server hangs up.
_LAST_CALL_S = 0.5


class BoundedConnection(H11Protocol):
    """Gives a caller 15 s to send the head of a request and 30 s to take in a part of an answer, and answers garbage once.

    The body of a request has its own deadline further in; once the server hangs up, what has not arrived within half a second is
    answered with 503. At most 512 connections are open, because a server that runs out of file descriptors cannot reach its
    database either: one more takes the place of that which has owed a whole request for longest, or is closed where none does.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _last_call: asyncio.TimerHandle | None = None
    _owing_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        self._owing_since = self.loop.time()
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [each for each in self.connections if each is not self]
            owing = [each for each in others if isinstance(each, BoundedConnection) and each.owes_a_request]
            given_up = min(owing, key=lambda each: each._owing_since, default=self)
            given_up.transport.abort()
            # Told of at the next turn of the loop, in which many may come.
            self.connections.discard(given_up)
            if given_up is self:
                return
        self._watch_head()

    @property
    def owes_a_request(self) -> bool:
        """Whether nothing is being answered here, because no request has arrived as a whole."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)

    def data_received(self, data: bytes) -> None:
        """A caller sends."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """An answer has been handed to the transport; another request may follow."""
        self._owing_since = self.loop.time()
        super().on_response_complete()
        self._watch_head()

    def shutdown(self) -> None:
        """The server hangs up: an answer under way is finished, a request under way has half a second to arrive."""
        super().shutdown()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and cycle.more_body and not cycle.response_complete:
            self._last_call = self.loop.call_later(_LAST_CALL_S, self._give_up_body)

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
        if self._last_call is not None:
            self._last_call.cancel()
        self._stop_watching_head()
        self._stop_watching_stall()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The caller takes the answer in more slowly than it is made."""
        super().pause_writing()
        self._watch_stall(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._stop_watching_stall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, unless an answer is already under way, and hang up."""
        self._hang_up("malformed-request", msg)

    def _give_up_body(self) -> None:
        if self.cycle.more_body and not self.cycle.response_complete:
            self._hang_up("service-stopping", "The request had not arrived as a whole when the service stopped.")

    def _hang_up(self, slug: str, detail: str) -> None:
        """Answer in the application's place, unless an answer is already under way."""
        if self.conn.our_state is h11.SEND_RESPONSE:
            # Whatever comes of the request that is being served has nobody to go to.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif self.conn.our_state is not h11.IDLE:
            self.transport.abort()
            return
        document = problem_document(slug, detail)
        body = encode(document)
        headers = [
            ("content-type", "application/problem+json"),
            ("content-length", str(len(body))),
            ("content-security-policy", API_CSP),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ]
        if (retry_after_s := PROBLEMS[slug].retry_after_s) is not None:
            headers.append(("retry-after", str(retry_after_s)))
        reason = HTTPStatus(document["status"]).phrase.encode()
        answer: tuple[Any, ...] = (
            h11.Response(status_code=document["status"], headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for part in answer:
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        """While neither side is inside a message, the head of a request is awaited: from the first moment, not anew per byte."""
        if self.conn.our_state is not h11.IDLE or self.conn.their_state is not h11.IDLE:
            self._stop_watching_head()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.abort)

    def _stop_watching_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_stall(self, unsent: int) -> None:
        self._stop_watching_stall()
        self._stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self._check_progress, unsent)

    def _check_progress(self, unsent_before: int) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= unsent_before:
            # Without this the kernel would go on holding what it took over for a reader that does not read.
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self.transport.abort()
        else:
            self._watch_stall(unsent)

    def _stop_watching_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
