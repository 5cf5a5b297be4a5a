"""The phrases in which tests talk over a message bus, none of them dependent on how fast it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from application.ports.message_bus import BusStats, DeadLetter, Message, MessageBus, Payload, Priority
from domain.errors.bus import ReceiveTimeoutError
from tests.integration.contracts.buses import PATIENCE_S
from tests.patience import eventually_in_loop

__all__ = ["ended", "hear", "is_empty", "letters_of", "said", "settle", "until"]

# More than any call makes before it waits for somebody else.
_TRIPS = 20


def said(payload: Payload = None, *, to: str = "b", sender: str = "a", priority: Priority = Priority.NORMAL) -> Message:
    return Message(sender, to, "note", payload, priority=priority)


async def hear(bus: MessageBus, agent_id: str, how_many: int) -> list[Payload]:
    return [(await bus.receive(agent_id, timeout=PATIENCE_S)).payload for _ in range(how_many)]


async def is_empty(bus: MessageBus, agent_id: str) -> bool:
    try:
        await bus.receive(agent_id, timeout=0)
    except ReceiveTimeoutError:
        return True
    return False


async def until(bus: MessageBus, holds: Callable[[BusStats], bool]) -> BusStats:
    """Ask for the counts until they are as wanted; fails with the last ones when patience ends."""
    counts = await bus.stats()

    async def look() -> bool:
        nonlocal counts
        counts = await bus.stats()
        return holds(counts)

    try:
        await eventually_in_loop(look)
    except AssertionError as error:
        raise AssertionError(counts) from error
    return counts


async def letters_of(bus: MessageBus, how_many: int, agent_id: str | None = None) -> list[DeadLetter]:
    async def look() -> list[DeadLetter]:
        letters = await bus.dead_letters(agent_id)
        return letters if len(letters) >= how_many else []

    return await eventually_in_loop(look) if how_many else await bus.dead_letters(agent_id)


async def settle(bus: MessageBus, task: asyncio.Task[object]) -> None:
    """Let a task run until it waits for something that only others can bring.

    What it asked the transport for was asked before these counts, over the same object, and is answered before them.
    """
    for _ in range(_TRIPS):
        await asyncio.sleep(0)
        await bus.stats()
    assert not task.done()


async def ended(*tasks: asyncio.Task[object] | Awaitable[object]) -> list[object]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
