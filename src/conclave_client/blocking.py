"""`Conclave`: a Conclave server, for code that waits for its answers; `awaiting` says why its lists of calls stand there once more."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar

from conclave_client import calls
from conclave_client.errors import ClosedClientError
from conclave_client.exchange import Emit, Exchange, Lost, Open, Plan, Read, Reply, Step, Stream, StreamPlan, Task
from conclave_client.transport import as_method, client_options, head_of, load_httpx2, loss, request_options, server_of

if TYPE_CHECKING:
    import httpx2

__all__ = ["Conclave", "HaltCalls", "RunCalls", "WitnessCalls"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class _Line:
    """The connection of one plan: one answer at a time."""

    def __init__(self, client: httpx2.Client, sleep: Callable[[float], None]) -> None:
        self._client = client
        self._sleep = sleep
        self._response: httpx2.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def take(self, step: Step) -> Reply:
        """Carry out a step, and say what came of it."""
        if isinstance(step, Read):
            return self._read()
        self.hang_up()
        if isinstance(step, Open):
            return self._open(step)
        self._sleep(step.seconds)
        return None

    def hang_up(self) -> None:
        """Give back the connection, where there is one."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _open(self, step: Open) -> Reply:
        request = self._client.build_request(**request_options(step))
        try:
            self._response = self._client.send(request, stream=True)
        except load_httpx2().TransportError as error:
            return loss(error)
        except RuntimeError:
            if self._client.is_closed:
                raise ClosedClientError from None
            raise
        self._chunks = self._response.iter_raw()
        return head_of(self._response)

    def _read(self) -> Reply:
        try:
            return next(self._chunks, b"")
        except load_httpx2().TransportError as error:
            return Lost(loss(error).problem, sent=True)


class _Desk:
    """Carries out plans, each on a line of its own. Threads may share it."""

    def __init__(self, client: httpx2.Client, exchange: Exchange, sleep: Callable[[float], None]) -> None:
        self.client = client
        self.exchange = exchange
        self._sleep = sleep

    def perform(self, task: Task[_Result]) -> _Result:
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
                reply = line.take(step)
        finally:
            line.hang_up()

    def follow(self, stream: Stream[_Item]) -> Iterator[_Item]:
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
                    reply = line.take(step)
        finally:
            line.hang_up()


class _Calls:
    """Some of the calls of one server."""

    def __init__(self, desk: _Desk) -> None:
        self._desk = desk


def _answered(
    make: Callable[_Arguments, Task[_Result]],
) -> Callable[Concatenate[_Calls, _Arguments], _Result]:
    """The method that makes this call and returns its result."""

    def method(self: _Calls, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return self._desk.perform(make(*args, **kwargs))

    return as_method(method, make)


def _followed(
    make: Callable[_Arguments, Stream[_Item]],
) -> Callable[Concatenate[_Calls, _Arguments], Iterator[_Item]]:
    """The method that goes through everything that this call brings."""

    def method(self: _Calls, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Iterator[_Item]:
        return self._desk.follow(make(*args, **kwargs))

    return as_method(method, make)


class RunCalls(_Calls):
    """Swarms, pantheons, soaks and populations on the server."""

    start = _answered(calls.start_run)
    get = _answered(calls.get_run)
    list = _followed(calls.list_runs)
    events = _followed(calls.run_events)
    cancel = _answered(calls.cancel_run)


class HaltCalls(_Calls):
    """Whether the system is halted; for admins the way to halt it and to end the halt."""

    get = _answered(calls.halt_state)
    set = _answered(calls.halt)
    clear = _answered(calls.clear_halt)


class WitnessCalls(_Calls):
    """The log, which needs no key. Nothing is verified here: `conclave witness verify` does that."""

    checkpoint = _answered(calls.checkpoint)
    entry = _answered(calls.entry)
    inclusion_proof = _answered(calls.inclusion_proof)
    consistency_proof = _answered(calls.consistency_proof)
    tile = _answered(calls.tile)


class Conclave(_Calls):
    """A Conclave server. Threads may share one; use it in a `with` block, or close it.

    `patience_s` is how long, in all, a call may wait between its tries (0: it is tried once), and a stream for getting on;
    `answer_timeout_s` bounds each answer. A key goes only to an https address or to this machine unless `allow_plaintext`.
    `sleep` and `monotonic` are the clock. Everything raised on purpose is a `ConclaveClientError`.
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
        transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        address, key = server_of(url, api_key, allow_plaintext=allow_plaintext)
        client: httpx2.Client = load_httpx2().Client(transport=transport, **client_options(address, ssl_context))
        exchange = Exchange(
            address=address, key=key, patience_s=patience_s, answer_timeout_s=answer_timeout_s, monotonic=monotonic
        )
        super().__init__(_Desk(client, exchange, sleep))
        self.url = str(address)
        self.runs = RunCalls(self._desk)
        self.halt = HaltCalls(self._desk)
        self.witness = WitnessCalls(self._desk)

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

    def close(self) -> None:
        """Give back every connection."""
        self._desk.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"
