"""Carries requests and replies over one client connection, down to the resets that no HTTP library would send."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol, cast

from tests.llm_server.journal import Entry, Journal
from tests.llm_server.reply import Reply
from tests.llm_server.wire import MalformedRequestError, RequestHead, read_head, render

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Exchange:
    """One request and its answer; `entry` is None for the server's own endpoints, which the journal leaves out."""

    head: RequestHead
    journal: Journal
    entry: Entry | None


class Site(Protocol):
    """What a connection serves."""

    def opened(self, connection: "Connection") -> None:
        """Take note of a new connection."""

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""

    def begin(self, head: RequestHead) -> Exchange:
        """Open the exchange of a request whose head is complete."""

    def serve(self, connection: "Connection", exchange: Exchange, body: bytes) -> None:
        """Answer the exchange, now or later, through `connection.answer` or `connection.answer_at`."""


class Connection(asyncio.Protocol):
    """Reads one request after the other, and ends each one's entry exactly once: written, or the client gone."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._exchange: Exchange | None = None
        self._serving = False
        self._advancing = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._written: asyncio.Future[None] | None = None
        self._paused = False
        self._queued = 0
        self._finishing: Reply | None = None
        self._when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Paused means "the kernel has not taken everything", so the end of an answer is seen when it really ends.
        self._transport.set_write_buffer_limits(high=0)
        self._site.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._advance()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._account()
        if self._written is not None and not self._written.done():
            self._written.set_result(None)
        if self._finishing is not None:
            reply, self._finishing = self._finishing, None
            self._finish(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._site.closed(self)
        self._drop(disconnected=True)

    def answer_at(self, exchange: Exchange, reply: Reply, *, due: float) -> None:
        """Answer when the loop's clock shows `due`, or at once when that has passed."""
        loop = asyncio.get_running_loop()
        if due <= loop.time():
            self.answer(exchange, reply)
        else:
            self._timer = loop.call_at(due, self.answer, exchange, reply)

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        """Put the reply on the wire, unless the client has left or the exchange was given up."""
        if self._exchange is not exchange:
            return
        self._timer = None
        if reply.data:
            self._write(reply.data, reply.status)
        if reply.parts is None:
            self._finish_when_written(reply)
        else:
            self._task = asyncio.get_running_loop().create_task(self._pump(reply, reply.parts()))

    def defer(self, *, when_lost: Callable[[], None]) -> None:
        """Leave the present exchange open, and say what to do should the client leave before its answer."""
        self._when_lost = when_lost

    def give_up(self) -> None:
        """Close the connection if an entry of the journal is open on it, without calling that a disconnect."""
        if self._exchange is not None and self._exchange.entry is not None:
            self.abort()

    def abort(self) -> None:
        """Close the connection whatever its state."""
        self._drop(disconnected=False)
        self._transport.abort()

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        try:
            while not self._serving and not self._transport.is_closing():
                if self._exchange is None:
                    found = read_head(self._buffer)
                    if found is None:
                        return
                    head, length = found
                    del self._buffer[:length]
                    self._exchange = self._site.begin(head)
                exchange = self._exchange
                if len(self._buffer) < exchange.head.content_length:
                    return
                body = bytes(self._buffer[: exchange.head.content_length])
                del self._buffer[: exchange.head.content_length]
                self._serving = True
                self._site.serve(self, exchange, body)
        except MalformedRequestError as error:
            body = json.dumps({"error": {"message": error.reason, "type": "invalid_request_error"}}).encode()
            self._transport.write(render(error.status, body, headers={"Connection": "close"}))
            self._transport.close()
        finally:
            self._advancing = False

    def _write(self, data: bytes, status: int | None) -> None:
        entry = self._exchange.entry if self._exchange is not None else None
        self._transport.write(data)
        self._queued += len(data)
        if entry is not None:
            entry.status = status
        self._account()

    def _account(self) -> None:
        if self._exchange is not None and self._exchange.entry is not None:
            self._exchange.entry.bytes_sent = self._queued - self._transport.get_write_buffer_size()

    async def _pump(self, reply: Reply, parts: AsyncGenerator[bytes, None]) -> None:
        async with contextlib.aclosing(parts):
            async for part in parts:
                self._write(part, reply.status)
                while self._paused:
                    self._written = asyncio.get_running_loop().create_future()
                    await self._written
                # An answer without an end must leave the loop to the others even while the client keeps up with it.
                await asyncio.sleep(0)
        self._task = None
        self._finish(reply)

    def _finish_when_written(self, reply: Reply) -> None:
        if self._paused:
            self._finishing = reply
        else:
            self._finish(reply)

    def _finish(self, reply: Reply) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        self._queued = 0
        self._serving = False
        self._when_lost = None
        if exchange.entry is not None:
            exchange.journal.end(exchange.entry, sent_whole=True)
        if reply.ending == "reset":
            connected = cast("socket.socket", self._transport.get_extra_info("socket"))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._transport.abort()
        elif reply.ending == "close" or not exchange.head.keep_alive:
            self._transport.close()
        else:
            self._advance()

    def _drop(self, *, disconnected: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._finishing = None
        if self._when_lost is not None:
            self._when_lost()
            self._when_lost = None
        if exchange is not None and exchange.entry is not None:
            exchange.journal.end(exchange.entry, disconnected=disconnected)
