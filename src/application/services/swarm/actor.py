"""The Actor: hands every agent of a batch what it is to do."""

from __future__ import annotations

from application.services.swarm.voice import Voice
from application.services.swarm.words import ACTOR, COORDINATOR, DELEGATIONS, Delegated, Order, Say
from domain.models.message import Message
from domain.models.swarm import SwarmPlan

__all__ = ["Actor"]


class Actor:
    """Turns each batch that the Coordinator delegates into one order for each of its agents, first and later attempts alike."""

    name = ACTOR
    groups = (DELEGATIONS,)

    def __init__(self, voice: Voice, plan: SwarmPlan) -> None:
        self._voice = voice
        self._plan = plan
        self.handed_over: set[int] = set()
        self._stopped = False

    async def take(self, messages: list[Message]) -> None:
        """Hand over, unless it was said to stop."""
        orders = []
        for message in messages:
            if message.sender != COORDINATOR:
                continue
            if message.type == Say.STOP:
                self._stopped = True
                await self._voice.answer(message, {"handed_over": len(self.handed_over)})
            elif message.type == Say.DELEGATE and not self._stopped:
                for delegated in Delegated.read(message.payload):
                    orders += self._orders(delegated)
        await self._voice.say(orders)

    def _orders(self, delegated: Delegated) -> list[Message]:
        self.handed_over.update(delegated.numbers)
        batch, attempt, item_of = delegated.batch, delegated.attempt, self._plan.item_of
        return [
            Message(ACTOR, delegated.tool, Say.ORDER, Order(number, batch, attempt, ticket, item_of(number)).payload())
            for number, ticket in zip(delegated.numbers, delegated.tickets, strict=True)
        ]
