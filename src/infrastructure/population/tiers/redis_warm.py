"""The warm tier in a Redis or Valkey: one hash for a population, its fields the states with their versions before them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import StateConflictError
from infrastructure.population.tiers.batches import opened

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script

__all__ = ["RedisWarm"]

_CONNECTIONS = 4
_PATIENCE_S = 5.0
_VERSION = struct.Struct("<q")
# What a killed run leaves behind is gone after this.
_KEPT_S = 24 * 3_600

# KEYS: the hash. ARGV: how many seconds it is kept, then for each state its field, the version that must stand there (empty: none)
# and the value. Answers the number of the first state, from 1, that has another version and that version, or nothing.
_SCRIPT = """
local states = KEYS[1]
for place = 2, #ARGV, 3 do
  local found = redis.call('HGET', states, ARGV[place])
  local version = found and found:sub(1, 8) or ''
  if version ~= ARGV[place + 1] then return {(place + 1) / 3, version} end
end
for place = 2, #ARGV, 3 do redis.call('HSET', states, ARGV[place], ARGV[place + 2]) end
redis.call('EXPIRE', states, ARGV[1])
return {}
"""


class RedisWarm:
    """A `StateCache` that another process may share: whoever names the same `name` has the same states."""

    def __init__(self, url: str, name: str, *, size: int) -> None:
        """Ask once whether it is there. Raises `ConfigurationError` for an address that is none, `DependencyUnavailableError`."""
        from redis import BlockingConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.size = size
        self._name = name
        try:
            self._pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=_PATIENCE_S,
                socket_timeout=_PATIENCE_S,
                socket_connect_timeout=_PATIENCE_S,
                # Once more on a connection that was cut while nobody used it.
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError):
            # The vendor's error repeats what was given, and that may hold a password.
            raise ConfigurationError(
                variable="CONCLAVE_REDIS_URL", problem="is no address of a Redis", remedy="Use redis://HOST:PORT/0."
            ) from None
        self._redis: Redis = Redis(connection_pool=self._pool)
        self._script: Script = self._redis.register_script(_SCRIPT)
        self._open = True
        with self._translated():
            self._redis.ping()

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        if not len(keys):
            return []
        with self._translated():
            found = cast("list[bytes | None]", self._redis.hmget(self._name, [str(int(key)) for key in keys]))
        return [None if value is None else StateRecord(_VERSION.unpack_from(value)[0], value[8:]) for value in found]

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        new = opened(batch, self.size)
        if not new.keys.size:
            return
        given: list[Any] = [_KEPT_S]
        for key, expected, version, state in zip(
            new.keys.tolist(), new.expected.tolist(), new.versions.tolist(), new.states, strict=True
        ):
            given += [key, _VERSION.pack(expected) if expected else b"", _VERSION.pack(version) + state.tobytes()]
        with self._translated():
            refused = cast("list[Any]", self._script(keys=[self._name], args=given))
        if refused:
            number, found = int(refused[0]) - 1, bytes(refused[1])
            raise StateConflictError(
                agent=int(new.keys[number]),
                expected=int(new.expected[number]),
                found=_VERSION.unpack(found)[0] if found else 0,
            )

    def drop(self, keys: Sequence[int]) -> None:
        """See `StateCache`."""
        if len(keys):
            with self._translated():
                self._redis.hdel(self._name, *(str(int(key)) for key in keys))

    def forget(self) -> None:
        """Give all of its memory back there."""
        with self._translated():
            self._redis.unlink(self._name)

    def close(self) -> None:
        """See `StateStore`."""
        if self._open:
            self._open = False
            self._pool.disconnect()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        from redis.exceptions import (
            AuthenticationError,
            AuthorizationError,
            BusyLoadingError,
            ConnectionError,  # noqa: A004 - the vendor's
            OutOfMemoryError,
            ReadOnlyError,
            RedisError,
            ResponseError,
            TimeoutError,  # noqa: A004 - the vendor's
        )

        # Its own messages name hosts and ports, which are not for everybody who may read a run's end.
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
        try:
            yield
        except (RedisError, OSError) as error:
            problem = next((text for kind, text in problems if isinstance(error, kind)), "it cannot be used")
            raise DependencyUnavailableError(
                dependency="the Redis of the warm tier",
                problem=problem,
                remedy="No state is lost, since all are written to the cold tier too: check that it runs, then resume the population.",
            ) from error
