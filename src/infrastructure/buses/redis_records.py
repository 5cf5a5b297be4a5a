"""Messages as the Redis bus stores them: a head of fixed length that its scripts read, then names and bodies."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import orjson

from application.ports.message_bus import DeadLetter, DeadLetterReason, Message, Payload, Priority
from domain.errors.bus import UnreadableMessageError
from infrastructure.buses.payloads import decode_payload

__all__ = [
    "BROADCAST",
    "DIRECT",
    "EXPIRES",
    "GIVEN_ID",
    "HEAD",
    "JSON",
    "NUMBERED",
    "RAW",
    "REPLY",
    "REQUEST",
    "WAITED",
    "WRAPPED",
    "Piece",
    "chunks",
    "dead_letters",
    "notes",
    "pieces",
    "queued",
    "records",
]

# Flags, priority, number of messages, expires at, sent at (both Unix seconds), the number in the first one's id, the lengths of recipient,
# sender, id (or what is before its number), type and correlation id, and of all bodies together.
HEAD = struct.Struct(">BBHdddBBBBBI")
# What a record asks for, in the lowest two bits of its flags.
DIRECT, REQUEST, REPLY, BROADCAST = range(4)
GIVEN_ID, EXPIRES, WAITED, NUMBERED = 4, 8, 16, 32
# How bodies are written: as JSON with a comma behind each, as `encode_payload` does, or as they are, being bytes.
JSON, WRAPPED, RAW = 0, 64, 128
_FORMS = WRAPPED | RAW
_PIECE = struct.Struct(">BHdI")
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
class Piece:
    """What the server handed out as one: a message or several of a run, when they were sent, and their place, to be given back to."""

    messages: list[Message]
    sent_at: float
    # Of a run: what its ids begin with, and the number of the first one.
    run: tuple[str, int] | None
    _priority: int
    _attempt: int
    _seq: float
    _record: bytes

    @property
    def place(self) -> bytes:
        """By what it can be given back."""
        return _PIECE.pack(self._priority, self._attempt, self._seq, len(self._record)) + self._record

    def split(self, number: int) -> tuple[Piece, Piece]:
        """Its first messages, and the others; both have at least one."""
        return self._part(0, number), self._part(number, len(self.messages))

    def _part(self, start: int, stop: int) -> Piece:
        flags, priority, count, expires_at, sent_at, first, *lengths, _ = HEAD.unpack_from(self._record)
        names = HEAD.size + sum(lengths)
        sizes = struct.unpack_from(f">{count}I", self._record, names)
        begin = names + 4 * count + sum(sizes[:start])
        some = sizes[start:stop]
        number = stop - start
        record = b"".join(
            (
                HEAD.pack(flags, priority, number, expires_at, sent_at, first + start, *lengths, sum(some)),
                self._record[HEAD.size : names],
                struct.pack(f">{number}I", *some) if number > 1 else b"",
                self._record[begin : begin + sum(some)],
            )
        )
        run = None if self.run is None else (self.run[0], self.run[1] + start)
        return Piece(
            self.messages[start:stop],
            self.sent_at,
            run,
            self._priority,
            self._attempt,
            self._seq + start,
            record,
        )


def pieces(data: bytes, unreadable: list[UnreadableMessageError]) -> list[Piece]:
    """What one take handed out, in order; what cannot be read is left out and told of in `unreadable`."""
    found: list[Piece] = []
    at = 0
    while at < len(data):
        priority, attempt, seq, length = _PIECE.unpack_from(data, at)
        start = at + _PIECE.size
        at = start + length
        try:
            messages, sent_at, run, _ = _read(data, start, attempt)
            found.append(Piece(messages, sent_at, run, priority, attempt, seq, data[start:at]))
        except UnreadableMessageError as error:
            # As many as it says, each of which was counted as handed out.
            unreadable += [error] * max(1, int.from_bytes(data[start + 2 : start + 4], "big"))
    return found


def records(data: bytes) -> Iterator[Message]:
    """The messages of records that lie one behind the other. Raises `UnreadableMessageError`."""
    at = 0
    while at < len(data):
        messages, _, _, at = _read(data, at, 1)
        yield from messages


def dead_letters(data: bytes) -> Iterator[DeadLetter]:
    """The dead letters of a page, but for those that cannot be read, which were counted when they were taken."""
    for each in chunks(data):
        at_ms, attempts, reason, length = _DEAD.unpack_from(each)
        start = _DEAD.size + length
        try:
            messages, _, _, _ = _read(each, start, max(1, attempts))
        except UnreadableMessageError:
            continue
        recipient = each[_DEAD.size : start].decode()
        for message in messages:
            yield DeadLetter(message, recipient, _REASONS[reason], attempts, at_ms / 1e3)


def chunks(data: bytes) -> Iterator[bytes]:
    """The parts of an answer in which each part has its length before it."""
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield data[at : at + length]
        at += length


def notes(data: bytes) -> Iterator[tuple[str, str]]:
    """What an object was told: a kind of one letter, and the inbox that it is about."""
    at = 0
    while at + 2 <= len(data):
        end = at + 2 + data[at + 1]
        yield chr(data[at]), data[at + 2 : end].decode(errors="replace")
        at = end


def queued(data: bytes) -> Iterator[tuple[str, int]]:
    """The inboxes, and how many messages each holds."""
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        yield data[at + 1 : end].decode(), _LENGTH.unpack_from(data, end)[0]
        at = end + _LENGTH.size


def _read(data: bytes, at: int, attempt: int) -> tuple[list[Message], float, tuple[str, int] | None, int]:
    """The messages of the record that begins at `at`, when they were sent, of what run they are, and where the record ends."""
    try:
        flags, priority, count, expires_at, sent_at, first, *lengths, size = HEAD.unpack_from(data, at)
        at += HEAD.size
        texts = []
        for length in lengths:
            texts.append(data[at : at + length].decode())
            at += length
        to, sender, name, about, correlation = texts
        start = at + (4 * count if count > 1 else 0)
        end = start + size
        if end > len(data) or count < 1:
            raise UnreadableMessageError(problem="is cut off")
        bodies = _bodies(flags & _FORMS, data, at, start, end, count)
        run = (name, int(first)) if flags & NUMBERED else None
        ids: Any = (name,) if run is None else [f"{name}{number}" for number in range(run[1], run[1] + count)]
        messages = list(
            map(
                Message,
                repeat(sender, count),
                repeat(to),
                repeat(about),
                bodies,
                repeat(_PRIORITIES[priority]),
                repeat(correlation or None),
                repeat(expires_at if flags & EXPIRES else None),
                ids,
                repeat(attempt),
            )
        )
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise UnreadableMessageError(problem=f"is not laid out as a message ({error})") from None
    if len(messages) != count:
        raise UnreadableMessageError(problem="has another number of messages than it says")
    return messages, sent_at, run, end


def _bodies(form: int, data: bytes, sizes_at: int, start: int, end: int, count: int) -> list[Payload]:
    if form == JSON:
        # What was written with a comma behind each body is one array, and read in one go.
        found: list[Payload] = orjson.loads(b"[%b]" % data[start : end - 1])
        return found
    sizes = struct.unpack_from(f">{count}I", data, sizes_at) if count > 1 else (end - start,)
    if sum(sizes) != end - start:
        raise UnreadableMessageError(problem="has bodies of other lengths than it says")
    parts = []
    for size in sizes:
        part = data[start : start + size]
        start += size
        parts.append(part if form == RAW else decode_payload(part))
    return parts
