"""Reads server-sent events as the WHATWG HTML standard writes them (section 9.2, text/event-stream)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["MAX_EVENT_CHARACTERS", "OversizedEventError", "StreamEvent", "read_events"]

MAX_EVENT_CHARACTERS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One dispatched event: its type, its data, and the last id seen up to it."""

    type: str
    data: str
    id: str


class OversizedEventError(ValueError):
    """An event is longer than any that Conclave sends."""


def read_events(lines: Iterable[str]) -> Iterator[StreamEvent | None]:
    """The events in these lines, each line without its end; None for each comment, which says that the server is alive.

    Raises `OversizedEventError` when the data of one event exceeds 1,048,576 characters. Data that the stream's end cuts off
    is no event.
    """
    kind, last_id, data, size = "", "", list[str](), 0
    for line in lines:
        if not line:
            if data:
                yield StreamEvent(kind or "message", "\n".join(data), last_id)
            kind, data, size = "", [], 0
            continue
        if line.startswith(":"):
            yield None
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            size += len(value) + 1
            if size > MAX_EVENT_CHARACTERS:
                raise OversizedEventError(f"an event is longer than {MAX_EVENT_CHARACTERS} characters")
            data.append(value)
        elif name == "id" and "\x00" not in value:
            last_id = value
