"""The warm tier in a Redis or Valkey: one hash for a population, its fields the states with their versions before them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, cast

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import StateConflictError
from infrastructure.population.tiers.batches import opened
from infrastructure.redis_pool import REDIS_VARIABLE
from infrastructure.redis_server import RedisServer

__all__ = ["RedisWarm"]

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
        self.size = size
        self._name = name
        self._server = RedisServer(url, patience_s=_PATIENCE_S, variable=REDIS_VARIABLE)
        self._redis = self._server.commands
        self._script = self._redis.register_script(_SCRIPT)
        self._open = True
        with self._server.translated(_unavailable):
            self._redis.ping()

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        if not len(keys):
            return []
        with self._server.translated(_unavailable):
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
        with self._server.translated(_unavailable):
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
            with self._server.translated(_unavailable):
                self._redis.hdel(self._name, *(str(int(key)) for key in keys))

    def forget(self) -> None:
        """Give all of its memory back there."""
        with self._server.translated(_unavailable):
            self._redis.unlink(self._name)

    def close(self) -> None:
        """See `StateStore`."""
        if self._open:
            self._open = False
            self._server.close()


def _unavailable(problem: str) -> DependencyUnavailableError:
    return DependencyUnavailableError(
        dependency="the Redis of the warm tier",
        problem=problem,
        remedy="No state is lost, since all are written to the cold tier too: check that it runs, then resume the population.",
    )
