"""The limits that a bus is made with, and what makes a name or a message one that any bus can carry."""

from __future__ import annotations

import math
from dataclasses import dataclass

from domain.errors.bus import InvalidMessageError
from domain.models.message import Acknowledgement, Message, Overflow, Priority

__all__ = [
    "MAX_DEAD_LETTERS",
    "MAX_NAME_BYTES",
    "RATE_WINDOW_S",
    "REMEMBERED_IDS",
    "BusLimits",
    "checked_message",
    "checked_name",
]

MAX_NAME_BYTES = 128
# At least so many of the last are kept: dead letters of a bus, ids of an inbox that a sender gave.
MAX_DEAD_LETTERS = 10_000
REMEMBERED_IDS = 100_000
RATE_WINDOW_S = 10.0
# No character takes more than four bytes in UTF-8, so a name of so few characters needs no counting.
_SHORT = MAX_NAME_BYTES // 4


@dataclass(frozen=True, slots=True)
class BusLimits:
    """Checked defaults of every inbox of a bus; raises ValueError for values that mean nothing."""

    capacity: int = 10_000
    overflow: Overflow = Overflow.BLOCK
    visibility_s: float = 30.0
    max_attempts: int = 5
    max_payload_bytes: int = 1_048_576

    @classmethod
    def checked(
        cls, *, capacity: int, overflow: str, visibility_s: float, max_attempts: int, max_payload_bytes: int
    ) -> BusLimits:
        """The limits, from a constructor's arguments."""
        for name, value in (
            ("capacity", capacity),
            ("visibility_s", visibility_s),
            ("max_attempts", max_attempts),
            ("max_payload_bytes", max_payload_bytes),
        ):
            if not value > 0 or not math.isfinite(value):
                raise ValueError(f"{name} is {value!r}: give a number above 0.")
        return cls(capacity, Overflow(overflow), visibility_s, max_attempts, max_payload_bytes)

    def inbox(
        self, *, capacity: int | None, overflow: str | None, acknowledge: str
    ) -> tuple[int, Overflow, Acknowledgement]:
        """What one inbox is opened with: its own settings, where it has some, else these."""
        if capacity is not None and capacity < 1:
            raise ValueError(f"capacity is {capacity!r}: give a number above 0.")
        return (
            self.capacity if capacity is None else capacity,
            self.overflow if overflow is None else Overflow(overflow),
            Acknowledgement(acknowledge),
        )


def checked_name(name: object, field: str) -> str:
    """The name of an agent or a group, or an id: 1 to 128 bytes of UTF-8. Raises `InvalidMessageError`."""
    if not isinstance(name, str):
        raise InvalidMessageError(field=field, problem=f"is {name!r} and no text")
    if not name:
        raise InvalidMessageError(field=field, problem="is empty")
    if len(name) > _SHORT or not name.isascii():
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise InvalidMessageError(field=field, problem="holds half of a character") from None
        if size > MAX_NAME_BYTES:
            raise InvalidMessageError(field=field, problem=f"has {size} bytes, more than {MAX_NAME_BYTES}")
    return name


def checked_message(message: Message, *, to_all: bool = False) -> Message:
    """The message, when every field but the payload is as it should be; one to all need not say to whom.

    Raises `InvalidMessageError`.
    """
    checked_name(message.sender, "sender")
    if not to_all or message.recipient != "":
        checked_name(message.recipient, "recipient")
    checked_name(message.type, "type")
    if message.priority.__class__ is not Priority and message.priority not in (0, 1, 2):
        raise InvalidMessageError(field="priority", problem=f"is {message.priority!r} and none of 0, 1, 2")
    if message.id:
        checked_name(message.id, "id")
    if message.correlation_id is not None:
        checked_name(message.correlation_id, "correlation_id")
    expires_at: object = message.expires_at
    if expires_at is not None and (not isinstance(expires_at, int | float) or math.isnan(expires_at)):
        raise InvalidMessageError(field="expires_at", problem=f"is {expires_at!r} and no time in Unix seconds")
    return message
