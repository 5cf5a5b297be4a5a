"""Pools of connections to a Redis or Valkey, made of an address in one way whether their owner may block or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from domain.errors.configuration import ConfigurationError

__all__ = ["REDIS_VARIABLE", "pool_at", "waiting_pool_at"]

_Pool = TypeVar("_Pool")

REDIS_VARIABLE = "CONCLAVE_REDIS_URL"


def pool_at(url: str, make: Callable[..., _Pool], *, variable: str = REDIS_VARIABLE, **options: Any) -> _Pool:
    """What the vendor's `from_url` makes of an address; connects with the first command.

    `variable` is where the address stands. Raises `ConfigurationError` for one that cannot be used.
    """
    try:
        return make(url, **options)
    except (ValueError, TypeError):
        # The vendor's error repeats what was given, and that may hold a password.
        raise ConfigurationError(
            variable=variable, problem="is no address of a Redis", remedy="Use redis://HOST:PORT/0."
        ) from None


def waiting_pool_at(
    url: str,
    make: Callable[..., _Pool],
    *,
    connections: int,
    patience_s: float,
    retry: object,
    variable: str = REDIS_VARIABLE,
) -> _Pool:
    """What the `from_url` of the vendor's blocking pool makes of it: few connections, `patience_s` for one and for each answer.

    `retry` is the vendor's, which has one for those who may block and one for those who may not. Raises like `pool_at`.
    """
    # It waits for one of its few connections, where the usual pool would raise.
    return pool_at(
        url,
        make,
        variable=variable,
        max_connections=connections,
        timeout=patience_s,
        socket_timeout=patience_s,
        socket_connect_timeout=patience_s,
        retry=retry,
    )
