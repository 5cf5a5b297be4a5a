"""The phrases in which tests talk over a message bus, none of them dependent on how fast it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from application.ports.message_bus import BusStats, DeadLetter, Message, MessageBus, Payload, Priority
from domain.errors.bus import ReceiveTimeoutError
from tests.integration.contracts.buses import PATIENCE_S

__all__ = ["ended", "hear", "is_empty", "letters_of", "said", "settle", "until"]


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
    deadline = time.monotonic() + PATIENCE_S
    while not holds(counts := await bus.stats()):
        assert time.monotonic() < deadline, counts
        await asyncio.sleep(0.002)
    return counts


async def letters_of(bus: MessageBus, how_many: int, agent_id: str | None = None) -> list[DeadLetter]:
    deadline = time.monotonic() + PATIENCE_S
    while len(letters := await bus.dead_letters(agent_id)) < how_many:
        assert time.monotonic() < deadline, letters
        await asyncio.sleep(0.002)
    return letters


async def settle(task: asyncio.Task[object]) -> None:
    """Let a task run until it waits for something that only others can bring."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    assert not task.done()


async def ended(*tasks: asyncio.Task[object] | Awaitable[object]) -> list[object]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE_S)
