"""The limits that a bus is made with, and what makes a name or a message one that any bus can carry."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TypeGuard

from domain.errors.bus import InvalidMessageError
from domain.models.message import Acknowledgement, Message, Overflow, Priority

__all__ = [
    "MAX_DEAD_LETTERS",
    "MAX_NAME_BYTES",
    "PATIENCE_S",
    "RATE_WINDOW_S",
    "REMEMBERED_IDS",
    "BusLimits",
    "checked_message",
    "checked_name",
    "checked_number",
    "checked_timeout",
]

MAX_NAME_BYTES = 128
# At least so many of the last are kept: dead letters of a bus, ids of an inbox that a sender gave.
MAX_DEAD_LETTERS = 10_000
REMEMBERED_IDS = 100_000
RATE_WINDOW_S = 10.0
# How long a call waits that was not told otherwise.
PATIENCE_S = 30.0
# What a word of 64 bits holds with its sign, which every transport counts to.
_LARGEST = (1 << 63) - 1
# A century: what is not delivered again before that never is, and nanoseconds of it fit into a word.
_LONGEST_S = 100 * 366 * 86_400.0
# Of a float: a whole number beyond it cannot be compared with any clock.
_LARGEST_TIME = sys.float_info.max
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
        if not _is_number(visibility_s) or not 0 < visibility_s < math.inf:
            raise ValueError(f"visibility_s is {visibility_s!r}: give seconds, above 0.")
        return cls(
            checked_number(capacity, "capacity"),
            Overflow(overflow),
            min(visibility_s, _LONGEST_S),
            checked_number(max_attempts, "max_attempts"),
            checked_number(max_payload_bytes, "max_payload_bytes"),
        )

    def inbox(
        self, *, capacity: int | None, overflow: str | None, acknowledge: str
    ) -> tuple[int, Overflow, Acknowledgement]:
        """What one inbox is opened with: its own settings, where it has some, else these."""
        return (
            self.capacity if capacity is None else checked_number(capacity, "capacity"),
            self.overflow if overflow is None else Overflow(overflow),
            Acknowledgement(acknowledge),
        )


def checked_number(value: object, argument: str) -> int:
    """A count that was given as that argument: a whole number from 1 to 2**63 - 1. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise ValueError(f"{argument} is {value!r}: give a whole number from 1 to {_LARGEST}.")
    return value


def checked_timeout(timeout: object) -> None:
    """Seconds to wait, however few or many; None is without an end. Raises ValueError for what is no number of them."""
    if timeout is not None and (not _is_number(timeout) or timeout != timeout):
        raise ValueError(f"timeout is {timeout!r}: give seconds.")


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
    if expires_at is not None and not (_is_number(expires_at) and -_LARGEST_TIME <= expires_at <= _LARGEST_TIME):
        raise InvalidMessageError(field="expires_at", problem=f"is {expires_at!r} and no time in Unix seconds")
    return message


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
