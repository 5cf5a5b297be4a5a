"""Messages ready to be sent over the Redis bus: checked, numbered, and those that go the same way packed together, as runs."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import TypeAlias

from application.ports.message_bus import Message, Payload
from domain.errors.bus import BusError, PayloadTooLargeError
from infrastructure.buses.bus_limits import checked_message
from infrastructure.buses.payloads import encode_payload
from infrastructure.buses.quick_json import quick_json
from infrastructure.buses.redis_records import (
    BROADCAST,
    DIRECT,
    EXPIRES,
    GIVEN_ID,
    HEAD,
    JSON,
    NUMBERED,
    RAW,
    WAITED,
    WRAPPED,
)

__all__ = ["Packer", "Parcel"]

_LONGEST_RUN = 256
_LARGEST_RUN = 256 * 1024
_way = attrgetter("id", "expires_at", "recipient", "sender", "type", "priority", "correlation_id")


@dataclass(slots=True)
class Parcel:
    """One message, or a run: several of one sender that go the same way and differ in number and body only."""

    recipient: str
    priority: int
    _flags: int
    _expires_at: float
    _first: int
    _lengths: tuple[int, ...]
    _names: bytes
    bodies: list[bytes] = field(default_factory=list)
    # Bytes of all bodies.
    size: int = 0
    sent_at: float = 0.0

    def data(self) -> bytes:
        """Its stored form."""
        count = len(self.bodies)
        return b"".join(
            (
                HEAD.pack(
                    self._flags,
                    self.priority,
                    count,
                    self._expires_at,
                    self.sent_at,
                    self._first,
                    *self._lengths,
                    self.size,
                ),
                self._names,
                struct.pack(f">{count}I", *map(len, self.bodies)) if count > 1 else b"",
                *self.bodies,
            )
        )

    def waited(self) -> None:
        """From now on it says that it had to wait for room."""
        self._flags |= WAITED

    def drop(self, number: int) -> None:
        """Leave out its first messages, which were sent."""
        self.size -= sum(map(len, self.bodies[:number]))
        del self.bodies[:number]
        self._first += number


Packed: TypeAlias = tuple[Parcel | BusError, list[Message], list[str]]


class Packer:
    """Makes ids that nobody else makes, and parcels. Raises `InvalidMessageError` and `PayloadTooLargeError`."""

    def __init__(self, *, instance: str, limit: int) -> None:
        """`instance` is the name of the bus object, `limit` the largest payload in bytes."""
        self._prefix = f"{instance}-"
        self._limit = limit
        self._number = 0

    def new_id(self) -> str:
        """An id that nobody else makes."""
        self._number += 1
        return f"{self._prefix}{self._number}"

    def single(self, message: Message, kind: int, message_id: str) -> Parcel:
        """One message with an id of its own or this one."""
        checked_message(message, to_all=kind == BROADCAST)
        form, body = self._body(message.payload)
        flags = kind | form | (GIVEN_ID if message.id else 0)
        parcel = _parcel(message, flags, message_id.encode(), 0)
        parcel.bodies.append(body)
        parcel.size = len(body)
        return parcel

    def runs(self, messages: Iterable[Message]) -> list[Packed]:
        """Parcels or what is wrong, in order, each with its messages and their ids; neighbours that are alike share one."""
        found: list[Packed] = []
        for (given, expires_at, *_), neighbours in groupby(messages, _way):
            if given or expires_at is not None:
                found += map(self._one, neighbours)
            else:
                self._add_runs(found, list(neighbours))
        return found

    def _one(self, message: Message) -> Packed:
        message_id = message.id or self.new_id()
        try:
            return self.single(message, DIRECT, message_id), [message], [message_id]
        except BusError as error:
            return error, [message], [message_id]

    def _add_runs(self, found: list[Packed], alike: list[Message]) -> None:
        try:
            checked_message(alike[0])
        except BusError as error:
            found.append((error, alike, [""] * len(alike)))
            return
        parcel: Parcel | None = None
        form, some, ids = JSON, list[Message](), list[str]()
        for message in alike:
            body = quick_json(message.payload)
            if body is not None and len(body) <= self._limit:
                own_form, body = JSON, body + b","
            else:
                try:
                    own_form, body = self._body(message.payload)
                except BusError as error:
                    parcel = None
                    found.append((error, [message], [""]))
                    continue
            size = len(body)
            if parcel is None or own_form != form or len(some) == _LONGEST_RUN or parcel.size + size > _LARGEST_RUN:
                form = own_form
                parcel = _parcel(message, DIRECT | form | NUMBERED, self._prefix.encode(), self._number + 1)
                some, ids = [], []
                found.append((parcel, some, ids))
            parcel.size += size
            parcel.bodies.append(body)
            some.append(message)
            self._number += 1
            ids.append(f"{self._prefix}{self._number}")

    def _body(self, payload: Payload) -> tuple[int, bytes]:
        if isinstance(payload, bytes):
            if len(payload) > self._limit:
                raise PayloadTooLargeError(size=len(payload), limit=self._limit)
            return RAW, bytes(payload)
        quick = quick_json(payload)
        if quick is None:
            return WRAPPED, encode_payload(payload, limit=self._limit)
        if len(quick) > self._limit:
            raise PayloadTooLargeError(size=len(quick), limit=self._limit)
        return JSON, quick + b","


def _parcel(message: Message, flags: int, name: bytes, first: int) -> Parcel:
    expires_at = message.expires_at
    names = (
        message.recipient.encode(),
        message.sender.encode(),
        name,
        message.type.encode(),
        b"" if message.correlation_id is None else message.correlation_id.encode(),
    )
    return Parcel(
        message.recipient,
        int(message.priority),
        flags | (0 if expires_at is None else EXPIRES),
        expires_at or 0.0,
        first,
        tuple(map(len, names)),
        b"".join(names),
        sent_at=time.time(),
    )
