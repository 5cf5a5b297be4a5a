"""Which message bus a run talks over: the transport by its name, and where its messages live."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from application.ports.message_bus import MessageBus
    from infrastructure.settings import Settings

__all__ = ["TRANSPORTS", "make_bus"]

TRANSPORTS = ("memory", "redis", "file", "shm")

# What the shared-memory bus takes; the same names everywhere, so that a run may change its transport.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder within is made for its user alone


def make_bus(
    settings: Settings,
    transport: str,
    *,
    name: str,
    folder: Path | None = None,
    url: str | None = None,
    **limits: Any,
) -> MessageBus:
    """A bus that is not open yet; equal names and places are one bus, but with `memory`, where each call makes another.

    `name` has up to 100 letters, digits, `.`, `_` and `-`. `folder` is for `file`, else `/dev/shm/conclave-<name>`; `url` for `redis`, else
    the one of the settings. `limits` are those of the transport's constructor. Raises `ConfigurationError`.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            variable="the name of the bus",
            problem=f"{name!r} cannot name one",
            remedy="Give up to 100 letters, digits, '.', '_' or '-', the first a letter or a digit.",
        )
    match transport:
        case "memory":
            from infrastructure.buses.memory_bus import MemoryMessageBus

            return MemoryMessageBus(**limits)
        case "redis":
            from infrastructure.buses.redis_bus import RedisMessageBus
            from infrastructure.redis_pool import REDIS_VARIABLE

            address = url or settings.redis_url
            if address is None:
                raise ConfigurationError(
                    variable=REDIS_VARIABLE,
                    problem="it is not set, and the transport redis needs a server",
                    remedy="Set it to the redis:// address of a Redis or Valkey, or take another transport.",
                )
            return RedisMessageBus(address, name, **limits)
        case "file":
            from infrastructure.buses.file_bus import FileMessageBus

            return FileMessageBus(_SHARED_MEMORY / f"conclave-{name}" if folder is None else folder, **limits)
        case "shm":
            from infrastructure.buses.shm_bus import SharedMemoryMessageBus

            return SharedMemoryMessageBus(name, **limits)
    raise ConfigurationError(
        variable="the transport of the bus",
        problem=f"{transport!r} is none",
        remedy=f"Take one of {', '.join(TRANSPORTS)}.",
    )
