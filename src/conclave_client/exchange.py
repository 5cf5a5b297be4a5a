"""The conversation with a server without any input or output: what to send next, what an answer means, and when to try again.

Each call, wait and stream is a generator (a plan) that yields steps and is sent what came of them. `conclave_client.blocking` and
`conclave_client.awaiting` carry the steps out, so that both decide the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from random import random
from typing import Any, Generic, Protocol, TypeVar

from conclave_client.address import Address, ApiKey
from conclave_client.answer import Answer, Head
from conclave_client.document import UnexpectedDocumentError
from conclave_client.errors import (
    ConnectionLostError,
    OversizedAnswerError,
    ProtocolViolationError,
    RefusedError,
    UnusableArgumentError,
)
from conclave_client.event_stream import Comment, EventStreamReader, OversizedEventError, Retry, StreamEvent
from conclave_client.retries import Patience, may_try_again

__all__ = [
    "Call",
    "Emit",
    "Exchange",
    "Followed",
    "Lost",
    "Open",
    "Pause",
    "Plan",
    "Read",
    "Reply",
    "Step",
    "Stream",
    "StreamPlan",
    "Task",
]

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_REFUSAL_BYTES = 256 * 1024
_ANSWER_TIMEOUT_S = 60.0
# A stream is pinged every 15 s, so that after three silent ones there is nobody any more.
_SILENCE_S = 45.0

_Result = TypeVar("_Result")
_Result_co = TypeVar("_Result_co", covariant=True)
_Item = TypeVar("_Item")
_Item_co = TypeVar("_Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Open:
    """Send this request, on a connection whose reads each take `timeout_s` at most, and reply with the `Head` of the answer."""

    method: str
    url: str
    # Holds the key.
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Read:
    """Reply with the next bytes of the answer; none are its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Let that many seconds pass, holding no connection."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Emit(Generic[_Item_co]):
    """Give this to whoever follows."""

    item: _Item_co


@dataclass(frozen=True, slots=True)
class Lost:
    """Instead of a head or of bytes: the connection is gone, or was never there. `sent`: the request may have arrived."""

    problem: str
    sent: bool


Step = Open | Read | Pause
Reply = Head | bytes | Lost | None
Plan = Generator[Step, Reply, _Result]
StreamPlan = Generator[Step | Emit[_Item], Reply, None]


class Task(Protocol[_Result_co]):
    """Something to ask of a server that comes to one result."""

    def plan(self, exchange: Exchange) -> Plan[_Result_co]:
        """The steps to it."""
        ...


class Stream(Protocol[_Item_co]):
    """Something to ask of a server that comes to many results, one after the other."""

    def plan(self, exchange: Exchange) -> StreamPlan[_Item_co]:
        """The steps to them."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[_Result]):
    """One request and how its answer is read. `repeatable` says whether carrying it out twice is the same as once."""

    method: str
    path: str
    read: Callable[[Answer], _Result]
    statuses: tuple[int, ...] = (200,)
    media_type: str = "application/json"
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    extra_time_s: float = 0.0

    def plan(self, exchange: Exchange) -> Plan[_Result]:
        """Ask, and ask again where that is safe."""
        return exchange.perform(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed(Generic[_Item]):
    """Something with a stream of events: where it is, what an event is, and the call that tells whether it has ended."""

    path: str
    after: int
    read: Callable[[Mapping[str, Any]], _Item]
    sequence: Callable[[_Item], int]
    is_terminal: Callable[[_Item], bool]
    has_ended: Call[bool]

    def plan(self, exchange: Exchange) -> StreamPlan[_Item]:
        """Follow it to its end."""
        return exchange.follow(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The conversation with the server at that address.

    `patience_s` bounds the pauses of one call, or of a stream that does not get on; `max_answer_bytes` any answer. `monotonic` is in
    seconds, `draw` gives a number from 0 to 1.
    """

    address: Address
    key: ApiKey | None = None
    patience_s: float = 30.0
    answer_timeout_s: float = _ANSWER_TIMEOUT_S
    max_answer_bytes: int = MAX_ANSWER_BYTES
    monotonic: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random
    agent: str = "conclave-client"

    def perform(self, call: Call[_Result]) -> Plan[_Result]:
        """What the server answers to `call`."""
        patience = Patience(self.patience_s, draw=self.draw)
        while True:
            try:
                answer = yield from self._answer(call)
                answer.require(*call.statuses, media_type=call.media_type)
                return call.read(answer)
            except (ConnectionLostError, RefusedError) as error:
                pause = patience.take(error) if may_try_again(error, repeatable=call.repeatable) else None
                if pause is None:
                    raise
            yield Pause(pause)

    def follow(self, followed: Followed[_Item]) -> StreamPlan[_Item]:
        """Every event once and in order, over as many connections as it takes, up to the terminal one."""
        last, patience = followed.after, Patience(self.patience_s, draw=self.draw)
        while True:
            seen = _Seen(last)
            problem: ConnectionLostError | RefusedError
            try:
                ended = yield from self._connection(followed, seen, patience)
                if ended:
                    return
                # The server ended the stream, and not what is followed: it is stopping, or somebody in between is.
                problem = ConnectionLostError(str(self.address), "ended the stream of events too early", sent=True)
                if not seen.to_be_continued and (yield from self.perform(followed.has_ended)):
                    return
            except (ConnectionLostError, RefusedError) as error:
                if not may_try_again(error, repeatable=True):
                    raise
                problem = error
            last = seen.last
            pause = patience.take(problem)
            if pause is None:
                raise problem
            yield Pause(pause)

    def _connection(
        self, followed: Followed[_Item], seen: _Seen, patience: Patience
    ) -> Generator[Step | Emit[_Item], Reply, bool]:
        """Emit what one connection brings; True once the terminal event came."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(seen.last)} if seen.last else {})}
        head = yield from self._open("GET", followed.path, headers, None, _SILENCE_S)
        if head.status != 200:
            content = yield from self._content(head, _MAX_REFUSAL_BYTES)
            Answer(str(self.address), head, content).require(200, media_type="text/event-stream")
        Answer.check_head(str(self.address), head)
        if head.media_type != "text/event-stream":
            raise self.violation("the content is no text/event-stream")
        reader = EventStreamReader()
        while chunk := (yield from self._read()):
            for found in self._parsed(reader, chunk):
                if isinstance(found, Retry):
                    patience.server_pause_s = found.seconds
                elif isinstance(found, Comment):
                    seen.comments += 1
                    seen.to_be_continued = found.text.startswith("not the end")
                    if seen.comments > 1:
                        # One may come with every connection; a second one means that the connection held.
                        patience.restore()
                else:
                    event = self._event(found, followed)
                    sequence = followed.sequence(event)
                    if sequence <= seen.last:
                        continue
                    if sequence != seen.last + 1:
                        raise self.violation(f"event {seen.last + 1} is missing in the stream")
                    seen.last, seen.to_be_continued = sequence, False
                    patience.restore()
                    yield Emit(event)
                    if followed.is_terminal(event):
                        return True
        return False

    def _parsed(self, reader: EventStreamReader, chunk: bytes) -> Generator[StreamEvent | Comment | Retry]:
        try:
            yield from reader.feed(chunk)
        except OversizedEventError as error:
            raise OversizedAnswerError(str(self.address), str(error)) from None

    def _event(self, found: StreamEvent, followed: Followed[_Item]) -> _Item:
        try:
            document = json.loads(found.data)
            event = followed.read(document)
        except (ValueError, RecursionError) as error:
            problem = str(error) if isinstance(error, UnexpectedDocumentError) else "it is no JSON"
            raise self.violation(f"in an event, {problem}") from None
        if found.id != str(followed.sequence(event)):
            raise self.violation("the id of an event is not its sequence number")
        return event

    def _answer(self, call: Call[Any]) -> Plan[Answer]:
        body = None if call.body is None else _encoded(call.body)
        headers = {"Accept": f"{call.media_type}, application/problem+json", **call.headers}
        timeout_s = self.answer_timeout_s + call.extra_time_s
        head = yield from self._open(call.method, call.path, headers, body, timeout_s)
        most = self.max_answer_bytes if head.status in call.statuses else _MAX_REFUSAL_BYTES
        content = yield from self._content(head, most, until=self.monotonic() + timeout_s)
        return Answer(str(self.address), head, content)

    def _open(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, timeout_s: float
    ) -> Plan[Head]:
        sent = {"User-Agent": self.agent, "Accept-Encoding": "identity", **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if self.key is not None:
            sent["Authorization"] = self.key.header
        head = yield Open(method, f"{self.address}{path}", sent, body, timeout_s)
        if isinstance(head, Lost):
            raise ConnectionLostError(str(self.address), head.problem, sent=head.sent)
        assert isinstance(head, Head)  # noqa: S101 - what an `Open` is replied to
        return head

    def _content(self, head: Head, most: int, *, until: float | None = None) -> Plan[bytes]:
        """The whole content, of which no more than `most` bytes are ever held."""
        announced = head.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and (len(announced) > 15 or int(announced) > most):
            raise OversizedAnswerError(str(self.address), f"its answer is longer than {most} bytes")
        content = bytearray()
        while chunk := (yield from self._read()):
            content += chunk
            if len(content) > most:
                raise OversizedAnswerError(str(self.address), f"its answer is longer than {most} bytes")
            if until is not None and self.monotonic() > until:
                raise ConnectionLostError(str(self.address), "answers too slowly", sent=True)
        return bytes(content)

    def _read(self) -> Plan[bytes]:
        chunk = yield Read()
        if isinstance(chunk, Lost):
            raise ConnectionLostError(str(self.address), chunk.problem, sent=True)
        assert isinstance(chunk, bytes)  # noqa: S101 - what a `Read` is replied to
        return chunk

    def violation(self, problem: str) -> ProtocolViolationError:
        """The error for an answer that is none of Conclave's."""
        return ProtocolViolationError(str(self.address), problem)


def _encoded(body: Mapping[str, Any]) -> bytes:
    """The body of a request as JSON. Raises `UnusableArgumentError`, which names the field that no JSON can hold."""
    parts = []
    for name, value in body.items():
        try:
            parts.append(json.dumps({name: value}, allow_nan=False)[1:-1])
        except (TypeError, ValueError, RecursionError):
            problem = (
                "holds what JSON cannot: send None, truth values, finite numbers, texts, and lists and dicts of these"
            )
            raise UnusableArgumentError(name, problem) from None
    return f"{{{', '.join(parts)}}}".encode()


@dataclass(slots=True)
class _Seen:
    """What one connection of a stream has brought: the last sequence number, comments, and whether it says that more is to come."""

    last: int
    comments: int = 0
    to_be_continued: bool = False
