"""Messages as the Redis bus stores them: a head of fixed length that its scripts read, then names and payload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from application.ports.message_bus import DeadLetter, DeadLetterReason, Message, Priority
from domain.errors.bus import UnreadableMessageError
from infrastructure.buses.payloads import decode_payload

__all__ = [
    "BROADCAST",
    "DIRECT",
    "REPLY",
    "REQUEST",
    "Taken",
    "chunks",
    "dead_letters",
    "notes",
    "packed_ids",
    "queued",
    "record_of",
    "records",
    "taken",
]

# What a record asks for, in the lowest two bits of its flags.
DIRECT, REQUEST, REPLY, BROADCAST = range(4)
_GIVEN_ID, _EXPIRES = 4, 8

# Flags, priority, expires at, sent at (both Unix seconds), and the lengths of recipient, sender, id, type, correlation id, payload.
_HEAD = struct.Struct(">BBddBBBBBI")
_TAKEN = struct.Struct(">BHdI")
_DEAD = struct.Struct(">dHBB")
_LENGTH = struct.Struct(">I")
_PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
_REASONS = (
    DeadLetterReason.UNKNOWN_AGENT,
    DeadLetterReason.UNREGISTERED,
    DeadLetterReason.INBOX_FULL,
    DeadLetterReason.EXPIRED,
    DeadLetterReason.ATTEMPTS,
)


@dataclass(slots=True)
class Taken:
    """A message that the server handed out, when it was sent, and the bytes by which it can be given back to its place."""

    message: Message
    sent_at: float
    place: bytes


def record_of(message: Message, message_id: str, payload: bytes, *, kind: int, sent_at: float) -> bytes:
    """The stored form of a checked message."""
    expires_at = message.expires_at
    flags = kind | (_GIVEN_ID if message.id else 0) | (0 if expires_at is None else _EXPIRES)
    to, sender, name, about = (
        message.recipient.encode(),
        message.sender.encode(),
        message_id.encode(),
        message.type.encode(),
    )
    correlation = b"" if message.correlation_id is None else message.correlation_id.encode()
    return b"".join(
        (
            _HEAD.pack(
                flags,
                message.priority,
                expires_at or 0.0,
                sent_at,
                len(to),
                len(sender),
                len(name),
                len(about),
                len(correlation),
                len(payload),
            ),
            to,
            sender,
            name,
            about,
            correlation,
            payload,
        )
    )


def _read(data: bytes, at: int, attempt: int) -> tuple[Message, float, int]:
    """The message whose record begins at `at`, when it was sent, and where the record ends. Raises `UnreadableMessageError`."""
    try:
        flags, priority, expires_at, sent_at, to, sender, name, about, correlation, body = _HEAD.unpack_from(data, at)
        begin = at + _HEAD.size
        end_to = begin + to
        end_sender = end_to + sender
        end_name = end_sender + name
        end_about = end_name + about
        end_correlation = end_about + correlation
        end = end_correlation + body
        if end > len(data):
            raise UnreadableMessageError(problem="is cut off")
        names = data[begin:end_correlation]
        if names.isascii():
            # One text cut up is quicker than five decoded.
            text = names.decode("ascii")
            sender_at, name_at, about_at, correlation_at = (
                end_to - begin,
                end_sender - begin,
                end_name - begin,
                end_about - begin,
            )
            fields = (
                text[:sender_at],
                text[sender_at:name_at],
                text[name_at:about_at],
                text[about_at:correlation_at],
                text[correlation_at:],
            )
        else:
            fields = (
                data[begin:end_to].decode(),
                data[end_to:end_sender].decode(),
                data[end_sender:end_name].decode(),
                data[end_name:end_about].decode(),
                data[end_about:end_correlation].decode(),
            )
        return (
            Message(
                fields[1],
                fields[0],
                fields[3],
                decode_payload(data[end_correlation:end]),
                _PRIORITIES[priority],
                fields[4] or None,
                expires_at if flags & _EXPIRES else None,
                fields[2],
                attempt,
            ),
            sent_at,
            end,
        )
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise UnreadableMessageError(problem=f"is not laid out as a message ({error})") from None


def chunks(data: bytes) -> Iterator[bytes]:
    """The parts of an answer in which each part has its length before it."""
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield data[at : at + length]
        at += length


def taken(data: bytes, unreadable: list[UnreadableMessageError]) -> list[Taken]:
    """What one take handed out, in order; those that cannot be read are left out and told of in `unreadable`."""
    found: list[Taken] = []
    at = 0
    while at < len(data):
        _, attempt, _, length = _TAKEN.unpack_from(data, at)
        start = at + _TAKEN.size
        end = start + length
        try:
            message, sent_at, _ = _read(data, start, attempt)
            found.append(Taken(message, sent_at, data[at:end]))
        except UnreadableMessageError as error:
            unreadable.append(error)
        at = end
    return found


def records(data: bytes) -> Iterator[Message]:
    """The messages of records that lie one behind the other. Raises `UnreadableMessageError`."""
    at = 0
    while at < len(data):
        message, _, at = _read(data, at, 1)
        yield message


def dead_letters(data: bytes) -> Iterator[DeadLetter]:
    """The dead letters of a page, but for those that cannot be read, which were counted when they were taken."""
    for each in chunks(data):
        at_ms, attempts, reason, length = _DEAD.unpack_from(each)
        start = _DEAD.size + length
        try:
            message, _, _ = _read(each, start, max(1, attempts))
        except UnreadableMessageError:
            continue
        yield DeadLetter(message, each[_DEAD.size : start].decode(), _REASONS[reason], attempts, at_ms / 1e3)


def notes(data: bytes) -> Iterator[tuple[str, str]]:
    """What an object was told: a kind of one letter, and the inbox that it is about."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + data[at + 1]
        yield chr(data[at]), data[at + 2 : end].decode(errors="replace")
        at = end


def packed_ids(ids: tuple[str, ...]) -> bytes:
    """Ids of at most 255 bytes, each behind its length."""
    return b"".join(
        bytes((len(each),)) + each for each in (one.encode(errors="replace") for one in ids) if len(each) < 256
    )


def queued(data: bytes) -> Iterator[tuple[str, int]]:
    """The inboxes, and how many messages each holds."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        yield data[at + 1 : end].decode(), _LENGTH.unpack_from(data, end)[0]
        at = end + _LENGTH.size
