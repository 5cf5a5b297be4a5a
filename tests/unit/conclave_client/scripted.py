"""A far end made of replies, and a clock that only pauses move: plans are carried out without any connection."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from conclave_client.address import Address, ApiKey
from conclave_client.answer import Head
from conclave_client.exchange import Emit, Exchange, Lost, Open, Pause, Read, Reply, Step

_Result = TypeVar("_Result")

SERVER = "http://127.0.0.1:8072"
REFUSED = Lost("cannot be reached", sent=False)
CUT = Lost("closed the connection", sent=True)


@dataclass(frozen=True)
class Answered:
    """A head, then these chunks; a `Lost` among them is where the connection breaks."""

    head: Head
    chunks: Sequence[bytes | Lost] = ()


def answered(document: Any, *, status: int = 200, media_type: str = "application/json", **headers: str) -> Answered:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answered(Head(status, {"content-type": media_type, **named}), [content])


def refused(status: int, slug: str, *, detail: str = "", **headers: str) -> Answered:
    document = {"type": f"urn:conclave:problem:{slug}", "title": "No", "status": status, "detail": detail}
    return answered(document, status=status, media_type="application/problem+json", **headers)


def streamed(*chunks: bytes | Lost) -> Answered:
    return Answered(Head(200, {"content-type": "text/event-stream"}), chunks)


def event(sequence: int, kind: str = "agent.ended", **more: Any) -> bytes:
    document = {"sequence": sequence, "type": kind, "at": "2026-11-21T21:26:08Z", "deliberation_id": "d-1", **more}
    return f"id: {sequence}\nevent: {kind}\ndata: {json.dumps(document)}\n\n".encode()


@dataclass
class FarEnd:
    """Answers the n-th request with the n-th reply, and every one after the last with the last."""

    replies: Sequence[Answered | Lost]
    asked: list[Open] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    emitted: list[Any] = field(default_factory=list)
    now: float = 0.0
    seconds_a_read: float = 0.0
    reading: list[bytes | Lost] = field(default_factory=list)

    def exchange(self, *, key: str | None = None, **settings: Any) -> Exchange:
        address = Address.parse(settings.pop("url", SERVER))
        chosen = None if key is None else ApiKey(key)
        return Exchange(address=address, key=chosen, monotonic=lambda: self.now, draw=lambda: 0.0, **settings)

    def carry_out(self, plan: Generator[Step | Emit[Any], Reply, _Result]) -> _Result:
        """What the plan comes to."""
        reply: Reply = None
        while True:
            try:
                step = plan.send(reply)
            except StopIteration as end:
                result: _Result = end.value
                return result
            reply = self._take(step)

    def _take(self, step: Step | Emit[Any]) -> Reply:
        if isinstance(step, Open):
            found = self.replies[min(len(self.asked), len(self.replies) - 1)]
            self.asked.append(step)
            if isinstance(found, Lost):
                return found
            self.reading = list(found.chunks)
            return found.head
        if isinstance(step, Read):
            self.now += self.seconds_a_read
            return self.reading.pop(0) if self.reading else b""
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.now += step.seconds
        elif isinstance(step, Emit):
            self.emitted.append(step.item)
        return None


def sent_document(asked: Open) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(asked.body or b"null")
    return document
