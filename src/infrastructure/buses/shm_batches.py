"""Runs of messages as bytes: one JSON header of columns, in which what is the same for all is written once, and the payloads after it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from operator import add
from typing import Any

import orjson

from domain.errors.bus import UnreadableMessageError
from domain.models.message import Message, MessageHeader, Payload, Priority
from infrastructure.buses.payloads import decode_payload, encode_payload

__all__ = ["LARGEST_RUN", "Columns", "Run", "headers", "made_ids", "pack", "unpack"]

LARGEST_RUN = 256
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_SCALARS = frozenset({str, int, float, bool, type(None)})
_NO_FLOATS = frozenset({str, int, bool})
_PRIORITIES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
_MAX_DEPTH = 32
_ENDINGS = tuple(f"{number:x}" for number in range(4_096))
_new = object.__new__


@dataclass(slots=True)
class Run:
    """Messages to one recipient in one lane, packed; `pending` are the ranges of them that are not in its inbox yet."""

    messages: Sequence[Message]
    recipient: str
    lane: int
    expires_us: int
    ids: list[str]
    # Whether the sender gave any of the ids.
    given: bool
    header: bytes
    payloads: bytes
    sent_ns: int
    pending: list[tuple[int, int]] = field(default_factory=list)
    # With ids of the sender's: which of the messages were new to an inbox, once one was asked.
    fresh: set[int] | None = None
    # How many places in inboxes were taken, those of messages that were dropped at once included.
    taken: int = 0

    def accepted(self) -> list[Message]:
        """Its messages made anew, without those that were duplicates wherever they went."""
        messages = unpack(self.header, self.payloads)
        return messages if self.fresh is None else [messages[index] for index in sorted(self.fresh)]

    def part(self, indexes: list[int]) -> tuple[bytes, bytes]:
        """Header and payloads of some of its messages, one at least."""
        every = unpack(self.header, self.payloads)
        messages = [every[index] for index in indexes]
        run = pack(
            messages,
            Columns.of(messages),
            [message.id for message in messages],
            prefix="",
            start=-1,
            given=True,
            limit=sys.maxsize,
            at=orjson.loads(self.header)[-1],
            sent_ns=self.sent_ns,
        )
        return run.header, run.payloads


@dataclass(slots=True)
class Columns:
    """The fields of several messages, each a list."""

    sender: list[str]
    recipient: list[str]
    type: list[str]
    priority: list[Priority]
    correlation_id: list[str | None]
    expires_at: list[float | None]
    id: list[str]
    payload: list[Payload]

    @classmethod
    def of(cls, messages: Sequence[Message]) -> Columns:
        """One pass for each field, which is the fastest way there is."""
        return cls(
            [message.sender for message in messages],
            [message.recipient for message in messages],
            [message.type for message in messages],
            [message.priority for message in messages],
            [message.correlation_id for message in messages],
            [message.expires_at for message in messages],
            [message.id for message in messages],
            [message.payload for message in messages],
        )

    @property
    def alike(self) -> bool:
        """Whether all go the same way: one recipient, priority and expiry."""
        count = len(self.id)
        return (
            self.recipient.count(self.recipient[0]) == count
            and self.priority.count(self.priority[0]) == count
            and self.expires_at.count(self.expires_at[0]) == count
        )


def pack(
    messages: Sequence[Message],
    columns: Columns,
    ids: list[str],
    *,
    prefix: str,
    start: int,
    given: bool,
    limit: int,
    at: float,
    sent_ns: int,
) -> Run:
    """Messages that are alike as a run; `ids` count on from `start` unless `start` is negative.

    Raises `InvalidMessageError` and `PayloadTooLargeError`.
    """
    first = messages[0]
    shape, lengths, payloads = _packed_payloads(columns.payload, limit)
    header = orjson.dumps(
        [
            len(messages),
            ids if start < 0 else [start],
            prefix,
            _column(columns.sender),
            first.recipient,
            _column(columns.type),
            int(first.priority),
            _column(columns.correlation_id),
            None if first.expires_at is None else float(first.expires_at),
            shape,
            lengths,
            at,
        ]
    )
    return Run(
        messages=messages,
        recipient=first.recipient,
        lane=int(first.priority),
        # Rounded up, so that nothing expires early; 0 stands for never.
        expires_us=_microseconds(first.expires_at),
        ids=ids,
        given=given,
        header=header,
        payloads=payloads,
        sent_ns=sent_ns,
        pending=[(0, len(messages))],
    )


def unpack(header: bytes, payloads: bytes) -> list[Message]:
    """All messages of a run, made anew. Raises `UnreadableMessageError`."""
    try:
        count, ids, prefix, sender, recipient, kind, lane, correlation, expires_at, shape, lengths, _ = orjson.loads(
            header
        )
        priority = _PRIORITIES[lane]
        # Field by field, because calls of the class take half as long again.
        found: list[Message] = list(map(_new, repeat(Message, count)))
        rows = zip(
            found,
            _cells(sender, count),
            _cells(kind, count),
            _unpacked_payloads(shape, lengths, payloads, count),
            _cells(correlation, count),
            _ids(ids, prefix, count),
            strict=True,
        )
        for message, message.sender, message.type, message.payload, message.correlation_id, message.id in rows:
            message.recipient = recipient
            message.priority = priority
            message.expires_at = expires_at
            message.attempt = 1
    except (ValueError, TypeError, LookupError) as error:
        raise UnreadableMessageError(problem=f"is no run of messages ({error})") from None
    return found


def made_ids(prefix: str, start: int, count: int) -> list[str]:
    """The ids of a sender's messages by their numbers; most of each is made beforehand."""
    block, first = divmod(start, len(_ENDINGS))
    found = list(map(add, repeat(f"{prefix}{block:x}-"), _ENDINGS[first : first + count]))
    if len(found) < count:
        found += made_ids(prefix, start + len(found), count - len(found))
    return found


def headers(header: bytes, payloads: bytes | None) -> list[MessageHeader]:
    """The run as history shows it."""
    count, ids, prefix, sender, recipient, kind, lane, correlation, expires_at, shape, lengths, at = orjson.loads(
        header
    )
    bodies: Any = repeat(None) if payloads is None else _unpacked_payloads(shape, lengths, payloads, count)
    return list(
        map(
            MessageHeader,
            _ids(ids, prefix, count),
            _cells(sender, count),
            repeat(recipient, count),
            _cells(kind, count),
            repeat(_PRIORITIES[lane]),
            _cells(correlation, count),
            repeat(expires_at),
            repeat(at),
            bodies,
        )
    )


def _microseconds(expires_at: float | None) -> int:
    if expires_at is None or expires_at >= 2**43:
        return 0
    return int(expires_at * 1e6) + 1 if expires_at > 0 else 1


def _ids(ids: list[Any], prefix: str, count: int) -> list[str]:
    if ids[0].__class__ is int:
        return made_ids(prefix, ids[0], count)
    return ids


def _column(values: list[Any]) -> Any:
    first = values[0]
    return first if len(values) == 1 or values.count(first) == len(values) else values


def _cells(value: Any, count: int) -> Any:
    return value if value.__class__ is list else repeat(value, count)


def _packed_payloads(payloads: list[Payload], limit: int) -> tuple[str, list[int] | None, bytes]:
    """The shape (`n` nothing, `j` one JSON array, `b` bytes, else a letter each), the lengths where there are some, and the bytes."""
    kinds = set(map(type, payloads))
    if kinds == {type(None)}:
        return "n", None, b""
    if kinds == {bytes}:
        lengths: list[int] = list(map(len, payloads))  # type: ignore[arg-type]
        if max(lengths) <= limit:
            return "b", lengths, b"".join(payloads)  # type: ignore[arg-type]
    elif (
        kinds <= _SCALARS
        or (kinds == {dict} and set(map(type, chain.from_iterable(map(dict.values, payloads)))) <= _SCALARS)  # type: ignore[arg-type]
        or all(_is_plain(each, 0) for each in payloads)
    ):
        try:
            data = orjson.dumps(payloads, option=_OPTIONS)
        except TypeError:
            # A number beyond 64 bits, or half a character.
            data = b""
        # NaN is written as null: where there is a null, each is written by itself.
        if 0 < len(data) <= limit and (kinds <= _NO_FLOATS or b"null" not in data):
            return "j", None, data
    letters, parts = [], []
    for each in payloads:
        raw = each.__class__ is bytes and len(each) <= limit
        letters.append("b" if raw else "x")
        parts.append(each if raw else encode_payload(each, limit=limit))
    return "".join(letters), list(map(len, parts)), b"".join(parts)  # type: ignore[arg-type]


def _unpacked_payloads(shape: str, lengths: list[int] | None, data: bytes, count: int) -> Any:
    if shape == "j":
        return orjson.loads(data)
    if shape == "n" or lengths is None:
        return repeat(None, count)
    found: list[Payload] = []
    start = 0
    letters = repeat("b", count) if shape == "b" else shape
    for letter, length in zip(letters, lengths, strict=False):
        part = data[start : start + length]
        start += length
        found.append(part if letter == "b" else decode_payload(part))
    return found


def _is_plain(value: object, depth: int) -> bool:
    """Whether orjson writes and reads this as it is (all but NaN, which shows as a null)."""
    if value.__class__ in _SCALARS:
        return True
    if depth > _MAX_DEPTH:
        return False
    if value.__class__ is dict:
        return all(_is_plain(each, depth + 1) for each in value.values())
    return value.__class__ is list and all(_is_plain(each, depth + 1) for each in value)
