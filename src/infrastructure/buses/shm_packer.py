"""Turns messages into checked runs: the sender's half of the shared-memory bus, which needs no shared memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any
from uuid import uuid4

from domain.errors.bus import BusError
from domain.models.message import Message, Priority
from infrastructure.buses.bus_limits import checked_message, checked_name
from infrastructure.buses.shm_batches import Columns, Run, made_ids, pack

__all__ = ["Packer"]

_address = attrgetter("recipient", "priority", "expires_at")


class Packer:
    """Gives ids, checks every field and packs what goes the same way together, in order."""

    def __init__(self, *, limit: int, wall_clock: Callable[[], float]) -> None:
        """`limit` is the largest payload in bytes."""
        self._limit = limit
        self._wall_clock = wall_clock
        self._prefix = f"{uuid4().hex[:12]}-"
        self._next = 1

    def new_id(self) -> str:
        """An id that nobody else makes."""
        number = self._next
        self._next = number + 1
        return made_ids(self._prefix, number, 1)[0]

    def run(self, messages: Sequence[Message], columns: Columns | None = None, *, to_all: bool = False) -> Run:
        """Messages that are alike, checked and packed; one that goes to all need not say to whom."""
        if columns is None:
            columns = Columns.of(messages)
        given = any(columns.id)
        first = messages[0]
        checked_message(first, to_all=to_all)
        # The others differ from the first in few fields, if in any, so looking at columns is quicker than at messages.
        if given or first.expires_at is not None or first.priority.__class__ is not Priority:
            for message in messages:
                checked_message(message, to_all=to_all)
        elif len(messages) > 1:
            for field, names in (("sender", columns.sender), ("type", columns.type)):
                for each in _others(names):
                    checked_name(each, field)
            for each in _others(columns.correlation_id):
                if each is not None:
                    checked_name(each, "correlation_id")
        start = self._next
        self._next = start + len(messages)
        prefix = self._prefix
        made = made_ids(prefix, start, len(messages))
        return pack(
            messages,
            columns,
            [own or new for own, new in zip(columns.id, made, strict=True)] if given else made,
            prefix=prefix,
            start=-1 if given else start,
            given=given,
            limit=self._limit,
            at=self._wall_clock(),
            sent_ns=time.monotonic_ns(),
        )

    def runs(self, messages: list[Message]) -> Iterable[Run | BusError]:
        """Runs of neighbours that are alike; where one of them cannot be sent, each by itself."""
        columns = Columns.of(messages)
        if columns.alike:
            yield from self._run_or_each(messages, columns)
            return
        for _, neighbours in groupby(messages, _address):
            yield from self._run_or_each(list(neighbours), None)

    def _run_or_each(self, messages: list[Message], columns: Columns | None) -> Iterable[Run | BusError]:
        try:
            whole = self.run(messages, columns)
        except (BusError, TypeError):
            pass
        else:
            yield whole
            return
        for message in messages:
            try:
                one = self.run([message])
            except BusError as error:
                yield error
            else:
                yield one


def _others(column: list[Any]) -> Iterable[Any]:
    """What a column holds besides its first value."""
    first = column[0]
    return () if column.count(first) == len(column) else set(column)
