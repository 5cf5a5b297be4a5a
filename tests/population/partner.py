"""A process that speaks for some rows of a population, as somebody else's would: it knows a bus and a few bytes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import BusClosedError
from infrastructure.population.external.letters import HEARD, SAID, Heard, Said, heard_in, said_payload

__all__ = ["answer_always", "bus_of", "main"]

Answer = Callable[[Heard], Said | None]


def opened_minds(heard: Heard) -> Said:
    """Whoever was spoken to thinks what it was told last."""
    return Said(heard.tick, heard.rows, heard.opinions)


async def answer_always(
    bus: MessageBus, name: str, answer: Answer = opened_minds, *, begun: Callable[[], None] = lambda: None
) -> None:
    """Be that partner until the bus is closed; `begun` is called when it can be spoken to."""
    await bus.register(name)
    begun()
    while True:
        try:
            found = await bus.receive(name)
        except BusClosedError:
            return
        if found.type != HEARD:
            continue
        said = answer(heard_in(found.payload))
        if said is not None:
            await bus.send(Message(name, "population", SAID, said_payload(said)))


def bus_of(transport: str, where: str) -> MessageBus:
    """One more object on the bus that lies there."""
    if transport == "redis":
        from infrastructure.buses.redis_bus import RedisMessageBus

        return RedisMessageBus(where, "external")
    if transport == "file":
        from infrastructure.buses.file_bus import FileMessageBus

        return FileMessageBus(Path(where))
    from infrastructure.buses.shm_bus import SharedMemoryMessageBus

    return SharedMemoryMessageBus("external", folder=Path(where))


async def _speak(about: dict[str, Any]) -> None:
    bus = bus_of(about["transport"], about["where"])

    def answer(heard: Heard) -> Said:
        return Said(heard.tick, np.array(about["rows"], np.uint32), np.full(len(about["rows"]), about["opinion"]))

    try:
        await answer_always(bus, about["name"], answer, begun=lambda: print("ready", flush=True))  # noqa: T201
    finally:
        await bus.close()


def main() -> None:
    """Speak for rows until it is killed; the first argument says for which, where and what."""
    asyncio.run(_speak(json.loads(sys.argv[1])))


if __name__ == "__main__":
    main()
