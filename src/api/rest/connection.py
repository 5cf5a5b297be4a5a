"""One HTTP connection that cannot be held open for nothing: bounded in number, in silence and in unread answers."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.rest.door import API_CSP
from api.rest.json_response import encode
from api.rest.problems import problem_document

__all__ = ["HEADER_TIMEOUT_S", "MAX_CONNECTIONS", "STALL_TIMEOUT_S", "BoundedConnection"]

MAX_CONNECTIONS = 512
HEADER_TIMEOUT_S = 15.0
STALL_TIMEOUT_S = 30.0


class BoundedConnection(H11Protocol):
    """Gives a caller 15 s to send the head of a request and 30 s to take in a part of an answer, and answers garbage once.

    The body of a request has its own deadline further in. Connections beyond 512 are closed at once, because a server that runs
    out of file descriptors cannot reach its database either.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A caller has connected."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """A caller sends."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """An answer has been handed to the transport; another request may follow."""
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The caller is gone."""
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
        states = {h11.IDLE, h11.SEND_RESPONSE}
        if self.conn.our_state not in states:
            self.transport.abort()
            return
        if self.conn.our_state is h11.SEND_RESPONSE:
            # The request that is being served was the broken one; whatever comes of it has nobody to go to.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = encode(problem_document("malformed-request", msg))
        headers = [
            ("content-type", "application/problem+json"),
            ("content-length", str(len(body))),
            ("content-security-policy", API_CSP),
            ("x-content-type-options", "nosniff"),
            ("connection", "close"),
        ]
        answer: tuple[Any, ...] = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
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
