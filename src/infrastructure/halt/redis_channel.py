"""The halt as a key in Redis: a third channel, which reaches every machine without the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading
from domain.models.text import clean
from infrastructure.redis_server import RedisServer

__all__ = ["HALT_KEY", "RedisHaltChannel"]

HALT_KEY = "conclave:halt"
_NAME = "redis"
_TIMEOUT_S = 1.0
_MAX_BYTES = 16 * 1024


class RedisHaltChannel:
    """`HaltChannel` over the key `conclave:halt`, which is there while the system is halted; `{"reason", "since"}` as JSON.

    As durable as that server writes: one that forgets its keys in a restart, or evicts them, forgets the halt, and then another
    channel has to hold it.
    """

    name = _NAME

    def __init__(self, url: str) -> None:
        """Connects with the first call. Raises `ConfigurationError` for an address that cannot be used."""
        self._server = RedisServer(url, patience_s=_TIMEOUT_S, variable="CONCLAVE_HALT_REDIS_URL")

    def read(self) -> ChannelReading:
        """As in `HaltChannel`. A key that holds anything at all halts."""
        # In one step, because nothing there and nothing in it look the same to a bounded read.
        with self._server.translated(_unreachable), self._server.commands.pipeline(transaction=True) as both:
            both.exists(HALT_KEY)
            both.getrange(HALT_KEY, 0, _MAX_BYTES - 1)
            is_there, found = both.execute()
        if not is_there:
            return ChannelReading(halted=False)
        return _reading(bytes(found))

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`."""
        value = json.dumps({"reason": reason, "since": since.astimezone(UTC).isoformat()})
        with self._server.translated(_unreachable):
            return bool(self._server.commands.set(HALT_KEY, value, nx=True))

    def clear(self) -> bool:
        """As in `HaltChannel`."""
        with self._server.translated(_unreachable):
            return bool(self._server.commands.delete(HALT_KEY))

    def close(self) -> None:
        """As in `HaltChannel`."""
        self._server.close()


def _reading(value: bytes) -> ChannelReading:
    try:
        document = json.loads(value)
        reason, since = document.get("reason"), document.get("since")
        at = None if since is None else datetime.fromisoformat(since)
    except (ValueError, TypeError, AttributeError, RecursionError):
        reason, at = value.decode(errors="replace"), None
    if not isinstance(reason, str):
        reason = None
    shown = None if reason is None else clean(reason).strip()[:MAX_REASON_CHARACTERS]
    return ChannelReading(halted=True, reason=shown or None, since=None if at is None else _in_utc(at))


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _unreachable(problem: str) -> HaltChannelUnreachableError:
    return HaltChannelUnreachableError(channel=_NAME, problem=problem)
