"""Where models are asked: one address that was checked before anything, least of all a key, is sent to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import urlsplit

from domain.errors.configuration import ConfigurationError

__all__ = ["Endpoint", "checked_key"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible API: `base_url` without a slash at its end, `host` (with the port) as messages name it."""

    base_url: str
    host: str

    @classmethod
    def parse(cls, base_url: str, *, variable: str = "CONCLAVE_LLM_BASE_URL") -> Endpoint:
        """The endpoint at that address. Raises `ConfigurationError`, which does not repeat it: it may hold a password."""

        def refuse(problem: str) -> NoReturn:
            raise ConfigurationError(
                variable=variable, problem=problem, remedy="Give an address like https://host.example/v1"
            )

        if not base_url.isprintable() or " " in base_url or "\\" in base_url:
            refuse("it holds characters that no address has")
        try:
            parts = urlsplit(base_url)
            port = parts.port
        except ValueError:
            refuse("it is no address")
        if parts.scheme not in {"http", "https"}:
            refuse("it has to begin with http:// or https://")
        if "@" in parts.netloc:
            refuse("it holds a user name or a password; a key belongs in CONCLAVE_LLM_API_KEY")
        if not parts.hostname or port == 0:
            refuse("it names no host and port that can be reached")
        if "?" in base_url or "#" in base_url:
            refuse("it holds a query or a fragment")
        return cls(base_url.rstrip("/"), parts.netloc)


def checked_key(api_key: str | None, *, variable: str = "CONCLAVE_LLM_API_KEY") -> str | None:
    """The key without blanks around it, None for an empty one. Raises `ConfigurationError` if no header can carry it."""
    key = "" if api_key is None else api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            variable=variable,
            problem="it holds characters that no key has (line breaks, blanks or letters beyond ASCII)",
            remedy="Copy the key again",
        )
    return key or None
