"""Requests of a Redis bus object that are in flight, and the replies that it fetches for them."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine

from application.ports.message_bus import Message
from domain.errors.bus import BusClosedError, BusError, RequestTimeoutError, UnknownAgentError
from infrastructure.buses.redis_control import RedisControl
from infrastructure.buses.redis_records import records
from infrastructure.buses.redis_sending import in_flight

__all__ = ["RedisRequests"]

_log = logging.getLogger(__name__)


class RedisRequests:
    """Gives each reply to the one request with its correlation id; what comes too late is counted and given to nobody."""

    def __init__(
        self,
        control: RedisControl,
        *,
        fetch: Callable[[], Awaitable[bytes]],
        start: Callable[[Coroutine[None, None, None]], None],
    ) -> None:
        """`fetch` asks for some replies that came, empty when there are none; `start` does something beside."""
        self._control = control
        self._fetch = fetch
        self._start = start
        self._waiting: dict[str, tuple[str, Future[Message]]] = {}
        self._fetching = self._more = False
        self._closed = False

    async def ask(
        self, message: Message, correlation: str, send: Callable[[], Awaitable[None]], timeout: float
    ) -> Message:
        """The reply to a message that `send` sends. Raises `RequestTimeoutError` and what `send` does."""
        if correlation in self._waiting:
            raise in_flight(correlation)
        loop = asyncio.get_running_loop()
        reply: Future[Message] = loop.create_future()
        self._waiting[correlation] = (message.sender, reply)
        timer = loop.call_later(timeout, _end, reply)
        try:
            await send()
            answer = await reply
        except TimeoutError as error:
            if isinstance(error, BusError):
                raise
            raise RequestTimeoutError(
                agent_id=message.recipient, correlation_id=correlation, timeout_s=timeout
            ) from None
        finally:
            timer.cancel()
            del self._waiting[correlation]
            answered = reply.done() and not reply.cancelled() and reply.exception() is None
            if not answered and not self._closed:
                await self._withdraw(correlation)
        return answer

    def look(self) -> None:
        """There may be replies."""
        self._more = True
        if not self._fetching:
            self._fetching = True
            self._start(self._fetch_all())

    def look_again(self) -> None:
        """Nobody knows what was missed."""
        if self._waiting:
            self.look()

    def forget(self, agent_id: str) -> None:
        """Whoever asked in this name gets `UnknownAgentError`."""
        for requester, future in self._waiting.values():
            if requester == agent_id and not future.done():
                future.set_exception(UnknownAgentError(agent_id=agent_id))

    def refuse(self, error: BusError) -> None:
        """Everybody who waits gets this error."""
        self._closed = True
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(error)

    async def _fetch_all(self) -> None:
        late = 0
        try:
            while self._more:
                self._more = False
                while answers := list(records(await self._fetch())):
                    for answer in answers:
                        waiting = self._waiting.get(answer.correlation_id or "")
                        if waiting is None or waiting[1].done():
                            late += 1
                        else:
                            waiting[1].set_result(answer)
        except BusClosedError:
            return
        except BusError as error:
            _log.warning("replies could not be fetched: %s", error)
        finally:
            self._fetching = False
        if late:
            await self._control.count("late_replies", late)

    async def _withdraw(self, correlation: str) -> None:
        try:
            await self._control.ask("forget", correlation)
        except BusError as error:
            _log.warning("a request could not be withdrawn: %s", error)


def _end(reply: Future[Message]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())
