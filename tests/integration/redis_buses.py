"""The messages that tests send over the Redis transport, and where it keeps them."""

from __future__ import annotations

import asyncio
from typing import Any

from application.ports.message_bus import Message
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.patience import PATIENCE_S

__all__ = ["PLACE", "message", "received"]

PLACE = "conclave:bus:{conclave}:"


def message(number: int = 0, *, to: str = "a", sender: str = "s", **more: Any) -> Message:
    return Message(sender, to, "number", number, **more)


async def received(bus: RedisMessageBus, number: int, *, name: str = "a") -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < number:
            found += [each.payload for each in await bus.receive_many(name, number - len(found))]
    return found
