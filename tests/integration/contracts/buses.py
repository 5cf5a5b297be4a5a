"""The transports of the message bus, each as a place on which tests open as many objects as they like."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from application.ports.message_bus import MessageBus
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.buses.shm_bus import SharedMemoryMessageBus

__all__ = ["PATIENCE_S", "TRANSPORTS", "BusPlace"]

# However busy the machine: what takes longer than this never happens.
PATIENCE_S = 60.0


@dataclass
class BusPlace:
    """Where one bus lives. `open(**common)` makes one more object on it, or gives the only one where there can be no other.

    The first object's `common` arguments count; whoever makes the place closes all of its objects.
    """

    name: str
    open: Callable[..., MessageBus]
    # Whether two objects on it are two, as another process would have them.
    shared: bool = True


Factory = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[BusPlace]]


@asynccontextmanager
async def _memory(_request: pytest.FixtureRequest, _folder: Path) -> AsyncIterator[BusPlace]:
    opened: list[MemoryMessageBus] = []

    def only(**common: Any) -> MessageBus:
        if not opened:
            opened.append(MemoryMessageBus(**common))
        return opened[0]

    yield BusPlace("memory", only, shared=False)
    for bus in opened:
        await bus.close()


@asynccontextmanager
async def _redis(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[BusPlace]:
    url: str = request.getfixturevalue("redis_url")
    opened: list[RedisMessageBus] = []

    def another(**common: Any) -> MessageBus:
        opened.append(RedisMessageBus(url, f"conclave-{folder.name}", **common))
        return opened[-1]

    yield BusPlace("redis", another)
    await close_all(opened)


@asynccontextmanager
async def _file(_request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[BusPlace]:
    opened: list[FileMessageBus] = []

    def another(**common: Any) -> MessageBus:
        opened.append(FileMessageBus(folder / "bus", **common))
        return opened[-1]

    yield BusPlace("file", another)
    await close_all(opened)


@asynccontextmanager
async def _shm(_request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[BusPlace]:
    opened: list[SharedMemoryMessageBus] = []

    def another(**common: Any) -> MessageBus:
        opened.append(SharedMemoryMessageBus("contract", folder=folder, **common))
        return opened[-1]

    yield BusPlace("shm", another)
    await close_all(opened)


async def close_all(buses: list[Any]) -> None:
    """Close each, the last one opened first."""
    closing: list[Callable[[], Awaitable[None]]] = [bus.close for bus in reversed(buses)]
    for close in closing:
        await close()


# Each transport adds its line: name, and how a test gets a fresh place. `folder` is empty and of this test alone.
TRANSPORTS: dict[str, Factory] = {
    "memory": _memory,
    "file": _file,
    "redis": _redis,
    "shm": _shm,
}
