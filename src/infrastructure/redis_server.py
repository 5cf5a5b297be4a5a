"""A Redis or Valkey as code that may block reaches it: few connections, and failures in words that name no host, port or key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from infrastructure.redis_pool import waiting_pool_at

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisServer"]

_CONNECTIONS = 4


class RedisServer:
    """Waits `patience_s` at most for a connection, and as long for each answer; connects with the first command.

    Threads may share it, and each owner has one of its own: whoever reads a halt waits for no one else's connection.
    """

    def __init__(self, url: str, *, patience_s: float, variable: str) -> None:
        """`variable` is where the address stands. Raises `ConfigurationError` for an address that cannot be used."""
        from redis import BlockingConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._pool = waiting_pool_at(
            url,
            BlockingConnectionPool.from_url,
            connections=_CONNECTIONS,
            patience_s=patience_s,
            # On a connection that was cut.
            retry=Retry(NoBackoff(), 1),
            variable=variable,
        )
        self.commands: Redis = Redis(connection_pool=self._pool)

    @contextlib.contextmanager
    def translated(self, failure: Callable[[str], Exception]) -> Iterator[None]:
        """Whatever goes wrong with a command within it is raised as the `failure` that is made of what went wrong."""
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError, ValueError) as error:
            raise failure(_problem(error)) from error

    def close(self) -> None:
        """Drop the connections. May be called twice."""
        self._pool.disconnect()


def _problem(error: Exception) -> str:
    """What went wrong. The server's own messages name hosts and ports, which are not for everybody who may ask."""
    from redis.exceptions import (
        AuthenticationError,
        AuthorizationError,
        BusyLoadingError,
        ConnectionError,  # noqa: A004 - the vendor's
        OutOfMemoryError,
        ReadOnlyError,
        ResponseError,
        TimeoutError,  # noqa: A004 - the vendor's
    )

    problems: tuple[tuple[type[Exception], str], ...] = (
        (AuthenticationError, "it refuses the user or the password"),
        (AuthorizationError, "it refuses the user or the password"),
        (BusyLoadingError, "it is starting"),
        (ReadOnlyError, "it is a replica that takes no writes"),
        (OutOfMemoryError, "it has no memory left"),
        (TimeoutError, "it does not answer in time"),
        (ConnectionError, "it cannot be reached, or the connection was lost"),
        (ResponseError, "it refuses the command, or the key holds something else"),
    )
    return next((text for kind, text in problems if isinstance(error, kind)), "it cannot be used")
