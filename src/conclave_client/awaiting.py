"""`AsyncConclave`: a Conclave server, for code on an event loop.

What waits and what is awaited cannot be one function, and a type checker knows a method only by its own assignment: so the lists of
calls and what carries out their plans stand in `blocking` too. Everything else about a call is written once, in `calls` and `exchange`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from conclave_client import calls
from conclave_client.errors import ClosedClientError
from conclave_client.exchange import Emit, Exchange, Lost, Open, Plan, Read, Reply, Step, Stream, StreamPlan, Task
from conclave_client.transport import as_method, client_options, head_of, load_httpx2, loss, request_options, server_of

if TYPE_CHECKING:
    import httpx2

__all__ = ["AsyncConclave", "AsyncHaltCalls", "AsyncRunCalls", "AsyncWitnessCalls"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class _Line:
    """The connection of one plan: one answer at a time."""

    def __init__(self, client: httpx2.AsyncClient, sleep: Callable[[float], Awaitable[None]]) -> None:
        self._client = client
        self._sleep = sleep
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def take(self, step: Step) -> Reply:
        """Carry out a step, and say what came of it."""
        if isinstance(step, Read):
            return await self._read()
        await self.hang_up()
        if isinstance(step, Open):
            return await self._open(step)
        await self._sleep(step.seconds)
        return None

    async def hang_up(self) -> None:
        """Give back the connection, where there is one."""
        response, self._response, self._chunks = self._response, None, None
        if response is not None:
            await response.aclose()

    async def _open(self, step: Open) -> Reply:
        request = self._client.build_request(**request_options(step))
        try:
            self._response = await self._client.send(request, stream=True)
        except load_httpx2().TransportError as error:
            return loss(error)
        except RuntimeError:
            if self._client.is_closed:
                raise ClosedClientError from None
            raise
        self._chunks = self._response.aiter_raw()
        return head_of(self._response)

    async def _read(self) -> Reply:
        if self._chunks is None:
            return b""
        try:
            return await anext(self._chunks, b"")
        except load_httpx2().TransportError as error:
            return Lost(loss(error).problem, sent=True)


class _Desk:
    """Carries out plans, each on a line of its own."""

    def __init__(
        self, client: httpx2.AsyncClient, exchange: Exchange, sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.client = client
        self.exchange = exchange
        self._sleep = sleep

    async def perform(self, task: Task[_Result]) -> _Result:
        """What the task comes to."""
        plan: Plan[_Result] = task.plan(self.exchange)
        line, reply = _Line(self.client, self._sleep), None
        try:
            while True:
                try:
                    step = plan.send(reply)
                except StopIteration as end:
                    result: _Result = end.value
                    return result
                reply = await line.take(step)
        finally:
            await line.hang_up()

    async def follow(self, stream: Stream[_Item]) -> AsyncGenerator[_Item, None]:
        """What the stream emits, as it comes."""
        plan: StreamPlan[_Item] = stream.plan(self.exchange)
        line, reply = _Line(self.client, self._sleep), None
        try:
            while True:
                try:
                    step = plan.send(reply)
                except StopIteration:
                    return
                if isinstance(step, Emit):
                    reply = None
                    yield step.item
                else:
                    reply = await line.take(step)
        finally:
            await line.hang_up()


class _Calls:
    """Some of the calls of one server."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk


def _answered(
    make: Callable[_Arguments, Task[_Result]],
) -> Callable[Concatenate[_Calls, _Arguments], Coroutine[Any, Any, _Result]]:
    """The method that makes this call and returns its result."""

    async def method(self: _Calls, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return await self._desk.perform(make(*args, **kwargs))

    return as_method(method, make)


def _followed(
    make: Callable[_Arguments, Stream[_Item]],
) -> Callable[Concatenate[_Calls, _Arguments], AsyncGenerator[_Item, None]]:
    """The method that goes through everything that this call brings."""

    def method(self: _Calls, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> AsyncGenerator[_Item, None]:
        return self._desk.follow(make(*args, **kwargs))

    return as_method(method, make)


class AsyncRunCalls(_Calls):
    """Swarms, pantheons, soaks and populations on the server."""

    start = _answered(calls.start_run)
    get = _answered(calls.get_run)
    list = _followed(calls.list_runs)
    events = _followed(calls.run_events)
    cancel = _answered(calls.cancel_run)


class AsyncHaltCalls(_Calls):
    """Whether the system is halted; for admins the way to halt it and to end the halt."""

    get = _answered(calls.halt_state)
    set = _answered(calls.halt)
    clear = _answered(calls.clear_halt)


class AsyncWitnessCalls(_Calls):
    """The log, which needs no key. Nothing is verified here: `conclave witness verify` does that."""

    checkpoint = _answered(calls.checkpoint)
    entry = _answered(calls.entry)
    inclusion_proof = _answered(calls.inclusion_proof)
    consistency_proof = _answered(calls.consistency_proof)
    tile = _answered(calls.tile)


class AsyncConclave(_Calls):
    """A Conclave server, as `Conclave` is, with every call awaited; use it in an `async with` block, or close it with `aclose`.

    A cancelled call gives back its connection and asks for nothing more. An iterator that is left before its end holds its connection
    until it is closed: `async with contextlib.aclosing(conclave.events(...))`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience_s: float = 30.0,
        answer_timeout_s: float = 60.0,
        allow_plaintext: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        address, key = server_of(url, api_key, allow_plaintext=allow_plaintext)
        client: httpx2.AsyncClient = load_httpx2().AsyncClient(
            transport=transport, **client_options(address, ssl_context)
        )
        exchange = Exchange(
            address=address, key=key, patience_s=patience_s, answer_timeout_s=answer_timeout_s, monotonic=monotonic
        )
        super().__init__(_Desk(client, exchange, sleep))
        self.url = str(address)
        self.runs = AsyncRunCalls(self._desk)
        self.halt = AsyncHaltCalls(self._desk)
        self.witness = AsyncWitnessCalls(self._desk)

    deliberate = _answered(calls.deliberate)
    ask = _answered(calls.ask)
    wait = _answered(calls.wait)
    get = _answered(calls.get)
    list = _followed(calls.list_deliberations)
    outputs = _answered(calls.outputs)
    events = _followed(calls.events)
    cancel = _answered(calls.cancel)
    recount = _answered(calls.recount)
    resolve = _answered(calls.resolve)
    report = _answered(calls.report)
    minutes = _answered(calls.minutes)
    bundle = _answered(calls.bundle)
    quote = _answered(calls.quote)
    usage = _answered(calls.usage)
    track_record = _answered(calls.track_record)
    rosters = _answered(calls.rosters)
    roster = _answered(calls.roster)
    pool = _answered(calls.pool)
    alive = _answered(calls.alive)
    readiness = _answered(calls.readiness)
    metrics = _answered(calls.metrics)
    webhook_keys = _answered(calls.webhook_keys)

    async def aclose(self) -> None:
        """Give back every connection."""
        await self._desk.client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"
