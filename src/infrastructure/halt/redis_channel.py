"""The halt as a key in Redis: a third channel, which reaches every machine without the database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from domain.errors.configuration import ConfigurationError
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading
from domain.models.text import clean

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["HALT_KEY", "RedisHaltChannel"]

HALT_KEY = "conclave:halt"
_NAME = "redis"
_CONNECTIONS = 4
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
        from redis import BlockingConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            # Waits for one of its few connections, where the usual pool would raise; tries once more on one that was cut.
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_TIMEOUT_S,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError):
            # The vendor's error repeats what was given, and that may hold a password.
            raise ConfigurationError(
                variable="CONCLAVE_HALT_REDIS_URL",
                problem="is no address of a Redis",
                remedy="Use redis://HOST:PORT/0.",
            ) from None
        self._redis: Redis = Redis(connection_pool=self._pool)

    def read(self) -> ChannelReading:
        """As in `HaltChannel`. A key that holds anything at all halts."""
        # In one step, because nothing there and nothing in it look the same to a bounded read.
        with _translated(), self._redis.pipeline(transaction=True) as both:
            both.exists(HALT_KEY)
            both.getrange(HALT_KEY, 0, _MAX_BYTES - 1)
            is_there, found = both.execute()
        if not is_there:
            return ChannelReading(halted=False)
        return _reading(bytes(found))

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`."""
        value = json.dumps({"reason": reason, "since": since.astimezone(UTC).isoformat()})
        with _translated():
            return bool(self._redis.set(HALT_KEY, value, nx=True))

    def clear(self) -> bool:
        """As in `HaltChannel`."""
        with _translated():
            return bool(self._redis.delete(HALT_KEY))

    def close(self) -> None:
        """As in `HaltChannel`."""
        self._pool.disconnect()


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


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        BusyLoadingError,
        ConnectionError,  # noqa: A004 - the vendor's
        ReadOnlyError,
        RedisError,
        ResponseError,
        TimeoutError,  # noqa: A004 - the vendor's
    )

    # Its own messages name hosts and ports, which are not for everybody who may ask why.
    problems: tuple[tuple[type[Exception], str], ...] = (
        (AuthenticationError, "it refuses the user or the password"),
        (AuthorizationError, "it refuses the user or the password"),
        (BusyLoadingError, "it is starting"),
        (ReadOnlyError, "it is a replica that takes no writes"),
        (TimeoutError, "it does not answer in time"),
        (ConnectionError, "it cannot be reached, or the connection was lost"),
        (ResponseError, "it refuses the command, or the key holds something else"),
    )
    try:
        yield
    except (RedisError, OSError, ValueError) as error:
        problem = next((text for kind, text in problems if isinstance(error, kind)), "it cannot be used")
        raise HaltChannelUnreachableError(channel=_NAME, problem=problem) from error
