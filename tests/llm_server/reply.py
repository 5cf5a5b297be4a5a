"""Says what a reply is, and what a fault may look at when it makes one."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tests.llm_server.completion import ChatRequest, Completion
from tests.llm_server.wire import render

REDIRECTED_PATH = "/redirected/v1/chat/completions"
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """What a rule may say about its fault; a fault reads those that concern it.

    `retry_after` is the header's seconds (null leaves it out), `retry_after_date` gives it instead as an HTTP-date
    that many seconds from now. `interval_seconds` parts the bytes of `drip`, `delay_seconds` is the wait of
    `slow_start`, `size_bytes` the content of `huge`, `location` and `redirect_status` the target of `redirect`.
    """

    retry_after: float | None = 1
    retry_after_date: float | None = None
    interval_seconds: float = 10.0
    delay_seconds: float = 31.0
    size_bytes: int = 64 * 1024 * 1024
    location: str = REDIRECTED_PATH
    redirect_status: int = 302

    def __post_init__(self) -> None:
        """Raise TypeError for a setting of the wrong type, before any request meets it."""
        for name in ("retry_after", "retry_after_date", "interval_seconds", "delay_seconds", "size_bytes"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise TypeError(f"{name} must be a number, not {value!r}")
        location: object = self.location
        if not isinstance(location, str):
            raise TypeError(f"location must be a string, not {location!r}")
        if self.redirect_status not in REDIRECTS:
            raise TypeError(f"redirect_status must be one of {REDIRECTS}, not {self.redirect_status!r}")


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes for the wire: `data` at once, then `parts` as they come, then what becomes of the connection."""

    data: bytes = b""
    status: int | None = 200
    parts: Callable[[], AsyncGenerator[bytes, None]] | None = None
    ending: Literal["keep", "close", "reset"] = "keep"


@dataclass(frozen=True, slots=True)
class Occasion:
    """All that a fault may look at: the request, the good answer it spoils, its settings, and the gate of `hold`."""

    request: ChatRequest
    completion: Completion
    settings: FaultSettings
    gate: Callable[[], Awaitable[None]]

    def good(self) -> bytes:
        """Return the response that would have been given without the fault."""
        return self.completion.response(self.request)

    def saying(self, content: str | None, *, finish_reason: str = "stop") -> Reply:
        """Return a well-formed completion with another content."""
        spoilt = replace(self.completion, content=content, finish_reason=finish_reason)
        return Reply(spoilt.response(self.request))

    def using(self, *, prompt_tokens: int, completion_tokens: int) -> Reply:
        """Return the good answer with another usage."""
        spoilt = replace(self.completion, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        return Reply(spoilt.response(self.request))


def error_reply(
    status: int, message: str, *, kind: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return an error in the API's own shape, `{"error": {"message", "type", "param", "code"}}`."""
    document = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Reply(render(status, json.dumps(document).encode(), headers=headers), status=status)


def json_reply(document: Mapping[str, Any]) -> Reply:
    """Return a 200 with `document` as its body."""
    return Reply(render(200, json.dumps(document).encode()))


def refusal(message: str) -> Reply:
    """Return a 400 of the server's own endpoints, telling a test what it asked for in vain."""
    return Reply(render(400, json.dumps({"error": {"message": message}}).encode()), status=400)
