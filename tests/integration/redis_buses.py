"""The messages that tests send over the Redis transport, where it keeps them, and a word of where such a test hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from application.ports.message_bus import Message
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.patience import PATIENCE_S

__all__ = ["PLACE", "message", "received", "told_where_it_hangs"]

PLACE = "conclave:bus:{conclave}:"


@contextmanager
def told_where_it_hangs() -> Iterator[None]:
    """What hangs in it says where."""
    import faulthandler

    faulthandler.dump_traceback_later(4 * PATIENCE_S)
    yield
    faulthandler.cancel_dump_traceback_later()


def message(number: int = 0, *, to: str = "a", sender: str = "s", **more: Any) -> Message:
    return Message(sender, to, "number", number, **more)


async def received(bus: RedisMessageBus, number: int, *, name: str = "a") -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < number:
            found += [each.payload for each in await bus.receive_many(name, number - len(found))]
    return found
