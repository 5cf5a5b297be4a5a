"""Agents of autogen-core in a row, each of which publishes what it gets to the next; their message type has to live at module level."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from autogen_core import (
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    TopicId,
    TypeSubscription,
    message_handler,
)

__all__ = ["through_autogen"]


@dataclass
class Parcel:
    """What is handed on."""

    number: int


class Hand(RoutedAgent):  # type: ignore[misc]
    """Hands on to the topic of the next, or says that the last has it."""

    def __init__(self, to: str | None, arrived: asyncio.Event) -> None:
        super().__init__("hand")
        self._to = to
        self._arrived = arrived

    @message_handler  # type: ignore[untyped-decorator]
    async def on_parcel(self, message: Parcel, ctx: MessageContext) -> None:  # noqa: ARG002 - the signature is the runtime's
        """Hand it on."""
        if self._to is None:
            self._arrived.set()
        else:
            await self.publish_message(Parcel(message.number), TopicId(self._to, "row"))


async def through_autogen(agents: int, rounds: int) -> list[float]:
    """Microseconds of each round from its publishing until the last agent has it."""
    runtime = SingleThreadedAgentRuntime()
    arrived = asyncio.Event()
    for number in range(agents):
        to = f"hand_{number + 1}" if number + 1 < agents else None
        await Hand.register(runtime, f"hand_{number}", lambda to=to: Hand(to, arrived))
        await runtime.add_subscription(TypeSubscription(f"hand_{number}", f"hand_{number}"))
    runtime.start()
    found = []
    for number in range(rounds):
        arrived.clear()
        began = time.perf_counter_ns()
        await runtime.publish_message(Parcel(number), TopicId("hand_0", "row"))
        await arrived.wait()
        found.append((time.perf_counter_ns() - began) / 1e3)
    await runtime.stop_when_idle()
    return found
