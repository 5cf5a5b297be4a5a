"""The port through which agents talk: inboxes with three priorities, groups, requests and replies, over any transport."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from domain.models.message import (
    Acknowledgement,
    BusStats,
    DeadLetter,
    DeadLetterReason,
    Message,
    MessageHeader,
    Overflow,
    Payload,
    Priority,
)

__all__ = [
    "Acknowledgement",
    "BusStats",
    "DeadLetter",
    "DeadLetterReason",
    "Message",
    "MessageBus",
    "MessageHeader",
    "Overflow",
    "Payload",
    "Priority",
    "Tap",
]

# Called in passing with what happened (`sent`, `delivered`, `redelivered`, `acknowledged`, `dead_letter`, `reply`) and the message. It
# has to be quick and must not raise: one that does is logged and never called again.
Tap: TypeAlias = Callable[[str, Message], None]


class MessageBus(Protocol):
    """Delivers each message to each recipient in order, at most once or at least once as the recipient chose, or says why it did not.

    HIGH before NORMAL before LOW; within a priority, from one sender to one recipient, exactly as sent, by sequence numbers. Nothing is
    lost without a count or a dead letter, but for what the transport's own docstring says about crashes. Times are in seconds. A
    constructor does no I/O; the first call opens. One object belongs to one event loop. After `close` every call raises `BusClosedError`;
    a transport that is away raises `BusUnavailableError`. A cancelled call loses no message.
    """

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name. Raises `NameTakenError` when a living owner or a group has the name.

        `overflow` is `block`, `reject` or `drop_oldest`, `acknowledge` `auto` (at most once) or `manual` (at least once). A name whose
        process is dead is taken over with its inbox.
        """
        ...

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox: what it holds becomes dead letters (`unregistered`), who waits for it gets `UnknownAgentError`.

        Raises `UnknownAgentError`.
        """
        ...

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError`, and `NameTakenError` when an agent has the group's name."""
        ...

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError`, and `NameTakenError` when `group` is an agent."""
        ...

    async def send(self, message: Message, *, timeout: float = 30.0) -> str:
        """Put a message into the inbox of its recipient, or of every member of that group but the sender; returns its id.

        A full inbox of `block` makes the sender of a single message wait up to `timeout`; one in a group just misses it. An id that this
        recipient was sent before is counted as a duplicate and returned. Raises `UnknownAgentError` (after the message became a dead
        letter), `InboxFullError`, `PayloadTooLargeError`, `InvalidMessageError`.
        """
        ...

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order; returns their ids. The first failure is raised after the others were tried."""
        ...

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's, whatever its recipient says; returns how many took it. Never waits."""
        ...

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError`, `UnknownAgentError`."""
        ...

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        ...

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged.

        A message is until it is delivered again, however late that is; it is not once it is a dead letter.
        """
        ...

    async def request(self, message: Message, *, timeout: float = 30.0) -> Message:
        """Send a message and wait for its reply, which has the same `correlation_id` and does not pass through the inbox.

        The sender has to be registered; any number of its requests may be in flight. Raises `RequestTimeoutError` and what `send` does.
        """
        ...

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        ...

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, at least the last 10,000."""
        ...

    async def stats(self) -> BusStats:
        """The counts so far."""
        ...

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages sent, newest last; with payloads only where the bus was made with `keep_payloads=True`."""
        ...

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; a second time nothing happens."""
        ...

    async def __aenter__(self) -> Self:
        """The bus itself."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        ...
