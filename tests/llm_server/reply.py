"""Says what a reply is, and what a fault may look at when it makes one."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.llm_server.completion import ChatRequest, Completion
from tests.llm_server.dialects import OPENAI, Dialect
from tests.llm_server.wire import render

REDIRECTED_PATH = "/redirected/v1/chat/completions"
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class FaultSettings:
    """What a rule may say about its fault; a fault reads those that concern it.

    `retry_after` is the header's seconds (null leaves it out), `retry_after_date` gives it instead as an HTTP-date
    that many seconds from now. `interval_seconds` parts the bytes of `drip`, `delay_seconds` is the wait of
    `slow_start`, `late_event` and `idle_stream`, `events` how many of a stream come before it breaks, `size_bytes` the content of
    `huge`, `location` and `redirect_status` the target of `redirect`, `prompt_tokens` and `completion_tokens` what `told_usage` says.
    """

    retry_after: float | None = 1
    retry_after_date: float | None = None
    interval_seconds: float = 10.0
    delay_seconds: float = 31.0
    size_bytes: int = 64 * 1024 * 1024
    events: int = 3
    prompt_tokens: int = 0
    completion_tokens: int = 0
    location: str = REDIRECTED_PATH
    redirect_status: int = 302

    def __post_init__(self) -> None:
        """Raise TypeError for a setting of the wrong type, before any request meets it."""
        for name in (
            "retry_after",
            "retry_after_date",
            "interval_seconds",
            "delay_seconds",
            "size_bytes",
            "events",
            "prompt_tokens",
            "completion_tokens",
        ):
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
    """Bytes for the wire: `data` at once, then `parts` as they come, then what becomes of the connection.

    `bill` is what the answer takes, tokens read and written, once it has been sent whole; None for what costs nothing.
    """

    data: bytes = b""
    status: int | None = 200
    parts: Callable[[], AsyncGenerator[bytes, None]] | None = None
    ending: Literal["keep", "close", "reset"] = "keep"
    bill: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Occasion:
    """All that a fault may look at: the request, the good answer it spoils, its settings, and the gate of `hold`.

    `headers` go with every answer: how the limits stand.
    """

    request: ChatRequest
    completion: Completion
    settings: FaultSettings
    gate: Callable[[], Awaitable[None]]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def bill(self) -> tuple[int, int]:
        """Tokens that the good answer takes, whatever a reply says of them."""
        return self.completion.prompt_tokens, self.completion.completion_tokens + self.completion.thinking_tokens

    def good(self) -> bytes:
        """Return the response that would have been given without the fault."""
        return self.completion.response(self.request, headers=self.headers)

    def saying(self, content: str | None, *, finish_reason: str = "stop") -> Reply:
        """Return a well-formed completion with another content."""
        spoilt = replace(self.completion, content=content, finish_reason=finish_reason)
        return Reply(spoilt.response(self.request, headers=self.headers), bill=self.bill)

    def using(self, *, prompt_tokens: int, completion_tokens: int) -> Reply:
        """Return the good answer with another usage."""
        spoilt = replace(
            self.completion, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, thinking_tokens=0
        )
        return Reply(spoilt.response(self.request, headers=self.headers), bill=self.bill)

    def error(
        self,
        status: int,
        message: str,
        *,
        kind: str,
        code: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return an error in the shape of the dialect."""
        return error_reply(
            status,
            message,
            kind=kind,
            code=code,
            dialect=self.completion.dialect,
            retry_after_s=retry_after_s,
            headers={**self.headers, **(headers or {})},
        )


def error_reply(
    status: int,
    message: str,
    *,
    kind: str,
    code: str | None = None,
    dialect: Dialect = OPENAI,
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Return an error in the dialect's own shape; in OpenAI's, `{"error": {"message", "type", "param", "code"}}`."""
    status = dialect.statuses.get(status, status)
    body = json.dumps(dialect.error(status, message, kind, code, retry_after_s)).encode()
    return Reply(render(status, body, headers=headers), status=status)


def json_reply(document: Mapping[str, Any]) -> Reply:
    """Return a 200 with `document` as its body."""
    return Reply(render(200, json.dumps(document).encode()))


def refusal(message: str) -> Reply:
    """Return a 400 of the server's own endpoints, telling a test what it asked for in vain."""
    return Reply(render(400, json.dumps({"error": {"message": message}}).encode()), status=400)
