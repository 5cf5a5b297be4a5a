"""Reads server-sent events (HTML, section 9.2, `text/event-stream`) from bytes, however they are cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["MAX_EVENT_BYTES", "Comment", "EventStreamReader", "OversizedEventError", "Retry", "StreamEvent"]

MAX_EVENT_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_MOST_RETRY_DIGITS = 9
_LINE_END = re.compile(rb"[\r\n]")


class OversizedEventError(ValueError):
    """A line, or the data of an event, is longer than the bound."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One dispatched event: its type, its data, and the last id seen up to it."""

    type: str
    data: str
    id: str


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that says nothing to a machine but that the server is alive."""

    text: str


@dataclass(frozen=True, slots=True)
class Retry:
    """How many seconds the server wants its reader to wait before coming back."""

    seconds: float


class EventStreamReader:
    """Takes bytes as they come and gives what they complete. It holds no more than one line and one event of `max_bytes` each."""

    def __init__(self, *, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._searched = 0
        self._at_start = True
        self._after_return = False
        self._type = ""
        self._id = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[StreamEvent | Comment | Retry]:
        """What is complete now. Raises `OversizedEventError`. To be exhausted before the next chunk is fed."""
        self._line += chunk
        while (line := self._next_line()) is not None:
            found = self._take(line)
            if found is not None:
                yield found

    def _next_line(self) -> str | None:
        if self._after_return and self._line:
            # The line ended with the carriage return already; what follows it is the second half of one line end.
            if self._line[:1] == b"\n":
                del self._line[:1]
            self._after_return = False
        ending = _LINE_END.search(self._line, self._searched)
        if ending is None:
            if len(self._line) > self._max_bytes:
                raise OversizedEventError(f"a line is longer than {self._max_bytes} bytes")
            self._searched = len(self._line)
            return None
        end = ending.start()
        self._after_return = ending[0] == b"\r"
        content = bytes(self._line[:end])
        del ending  # a match keeps its buffer from being cut
        del self._line[: end + 1]
        self._searched = 0
        if len(content) > self._max_bytes:
            raise OversizedEventError(f"a line is longer than {self._max_bytes} bytes")
        if self._at_start:
            self._at_start = False
            content = content.removeprefix(_BYTE_ORDER_MARK)
        return content.decode("utf-8", "replace")

    def _take(self, line: str) -> StreamEvent | Comment | Retry | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return Comment(line[1:].strip())
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._size += len(value) + 1
            if self._size > self._max_bytes:
                raise OversizedEventError(f"an event is longer than {self._max_bytes} characters")
            self._data.append(value)
        elif name == "id" and "\x00" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            return Retry(int(value[:_MOST_RETRY_DIGITS]) / 1000)
        return None

    def _dispatch(self) -> StreamEvent | None:
        data, kind = self._data, self._type
        self._data, self._size, self._type = [], 0, ""
        return StreamEvent(kind or "message", "\n".join(data), self._id) if data else None
