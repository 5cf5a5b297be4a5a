"""The port through which one message is posted to a webhook, once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["WebhookMessage", "WebhookReceiver", "WebhookReply", "WebhookSender"]


@dataclass(frozen=True, slots=True)
class WebhookReceiver:
    """Who is told: the name that its deliveries are kept under, and its address, which may be a secret and is not shown.

    With `key_name` it is told of the deliberations of that API key alone.
    """

    name: str
    address: str = field(repr=False)
    key_name: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """What is posted: the id of the delivery, the type of the event, and the body, JSON in UTF-8."""

    delivery_id: str
    event: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookReply:
    """The status that was answered, and the seconds that the receiver asked to be left alone, None where it did not."""

    status: int
    retry_after_s: float | None = None


class WebhookSender(Protocol):
    """Posts a message signed, follows no redirect, and waits for a bounded time."""

    async def send(self, receiver: WebhookReceiver, message: WebhookMessage) -> WebhookReply:
        """What was answered. Raises `DependencyUnavailableError`, which names no address, where nothing was."""
        ...
