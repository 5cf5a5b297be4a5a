"""A Redis or Valkey as code that may block reaches it: few connections, and failures in words that name no host, port or key."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from domain.errors.configuration import ConfigurationError

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

        try:
            # Waits for one of its few connections, where the usual pool would raise; tries once more on one that was cut.
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=patience_s,
                socket_timeout=patience_s,
                socket_connect_timeout=patience_s,
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError):
            # The vendor's error repeats what was given, and that may hold a password.
            raise ConfigurationError(
                variable=variable, problem="is no address of a Redis", remedy="Use redis://HOST:PORT/0."
            ) from None
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
