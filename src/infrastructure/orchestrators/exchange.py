"""What stands between a client and the provider that it asks: a request goes in, a whole reply comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["PACE_HEADERS", "Exchange", "Heard", "Reply", "pace_headers"]

PACE_HEADERS = ("retry-after", "ratelimit", "x-ratelimit-", "anthropic-ratelimit-")
"""How the names of those headers begin that speak of the pace a provider takes."""

_MAX_PACE_HEADERS = 32
_MAX_PACE_CHARACTERS = 128

Heard = Callable[[int, Mapping[str, str], bytes], None]
"""Told of a reply: its status, its headers, and the text of a refusal."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer; `document` is what was put together of a stream, and there is no body then."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    document: dict[str, Any] | None = None


class Exchange(Protocol):
    """Carries requests to one provider. One call is one request, whatever becomes of it."""

    @property
    def host(self) -> str:
        """Whom it asks, as messages name it."""
        ...

    def open(self) -> None:
        """Get ready. Raises `AgentInvocationError` once it is closed."""
        ...

    async def close(self) -> None:
        """Exchanges under way fail, and later ones too. May be called twice."""
        ...

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        """The answer to `body`, at most `most` bytes of it. Raises `AgentInvocationError` unless a whole one came.

        `heard` is told of each answer as soon as what matters of it is known.
        """
        ...

    async def get(self, path: str, *, most: int) -> Reply:
        """As `post`, without a body; it does not queue behind the posts."""
        ...


def pace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that speak of the pace, at most 32 of at most 128 printable characters each, their names in lower case."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        if len(found) < _MAX_PACE_HEADERS and name.lower().startswith(PACE_HEADERS) and value.isprintable():
            found.setdefault(name.lower(), value[:_MAX_PACE_CHARACTERS])
    return found
