"""How the roles of a swarm speak and listen: whole lists at a time, and every message counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Protocol

from application.ports.message_bus import MessageBus
from domain.models.message import Message, Payload, Priority

__all__ = ["Role", "Voice", "listen"]

_AT_A_TIME = 20_000
_REPLY_S = 30.0


class Role(Protocol):
    """One role: it hears what is sent to its name and to its groups, and answers over the bus."""

    @property
    def name(self) -> str:
        """Its name on the bus."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """The groups that it hears."""
        ...

    async def take(self, messages: list[Message]) -> None:
        """Deal with messages, in this order."""
        ...


class Voice:
    """Sends for all who speak in this process, and knows how much was sent and how much lay waiting."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        # Counted in bytes only when somebody asks, because that takes longer than sending.
        self._spoken: list[tuple[Payload, int]] = []
        self._heard = 0
        self._bytes = 0

    async def say(self, messages: Sequence[Message], *, inboxes: int = 1) -> None:
        """Send; each goes to so many inboxes."""
        if not messages:
            return
        self._spoken += [(message.payload, inboxes) for message in messages]
        await self.bus.send_many(messages)

    async def ask(
        self,
        sender: str,
        recipient: str,
        type: str,  # noqa: A002 - as `Message` names it
        payload: Payload = None,
        *,
        timeout: float = _REPLY_S,
    ) -> dict[str, Payload]:
        """The reply of a role, an object. Raises what `MessageBus.request` raises."""
        self._spoken.append((payload, 1))
        reply = await self.bus.request(Message(sender, recipient, type, payload), timeout=timeout)
        return reply.payload if isinstance(reply.payload, dict) else {}

    async def answer(self, request: Message, payload: Payload = None) -> None:
        """Reply, where a reply is waited for."""
        if request.correlation_id is not None:
            self._spoken.append((payload, 1))
            await self.bus.reply(request, payload)

    def tell(self, sender: str, recipient: str, type: str, payload: Payload, *, urgent: bool = False) -> Message:  # noqa: A002
        """A message that is yet to be said."""
        return Message(sender, recipient, type, payload, Priority.HIGH if urgent else Priority.NORMAL)

    def note_heard(self, number: int) -> None:
        """Note how many messages lay waiting."""
        self._heard = max(self._heard, number)

    @property
    def most_waiting(self) -> int:
        """The most messages that lay in one inbox when they were taken out."""
        return self._heard

    def count_bytes(self) -> int:
        """How many bytes of JSON the payloads so far have, once for each inbox."""
        spoken, self._spoken = self._spoken, []
        self._bytes += sum(len(json.dumps(payload, separators=(",", ":"))) * inboxes for payload, inboxes in spoken)
        return self._bytes


async def listen(voice: Voice, role: Role) -> None:
    """Hear and deal with what comes, for ever."""
    while True:
        messages = await voice.bus.receive_many(role.name, _AT_A_TIME)
        voice.note_heard(len(messages))
        await role.take(messages)
