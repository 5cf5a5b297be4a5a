"""The last messages of a shared-memory bus: a ring of run headers in shared memory."""

from __future__ import annotations

from domain.models.message import MessageHeader
from infrastructure.buses.shm_batches import headers
from infrastructure.buses.shm_layout import Head
from infrastructure.buses.shm_segment import Segment

__all__ = ["SharedHistory"]

_BEFORE = 3


class SharedHistory:
    """Holds the headers of the runs that fit into 256 KiB, whoever sent them; an entry is whole or not there.

    All calls are made inside a section of the segment. It keeps no journal: an entry counts from its last write on.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def append(self, header: bytes, payloads: bytes | None) -> None:
        """Note a run, with its payloads where they are wanted and fit into a quarter of the ring."""
        body = payloads or b""
        if len(body) > Head.HISTORY_WORDS * 2:
            payloads, body = None, b""
        size = _BEFORE + (len(header) + len(body) + 7) // 8
        if size > Head.HISTORY_WORDS:
            return
        words = self._segment.words
        left = Head.HISTORY_WORDS - words[Head.HISTORY_TO] % Head.HISTORY_WORDS
        if left < size:
            self._write(left, 0, 0, b"")
        self._write(size, len(header), 0 if payloads is None else len(body) + 1, header + body)

    def last(self, limit: int) -> list[MessageHeader]:
        """At most so many headers, newest last."""
        if limit < 1:
            return []
        segment = self._segment
        words = segment.words
        entries = []
        position = words[Head.HISTORY_FROM]
        while position < words[Head.HISTORY_TO]:
            place = Head.HISTORY + position % Head.HISTORY_WORDS
            if words[place] >= _BEFORE and words[place + 1]:
                entries.append(place)
            position += words[place]
        found: list[list[MessageHeader]] = []
        count = 0
        while entries and count < limit:
            place = entries.pop()
            start = (place + _BEFORE) * 8
            end = start + words[place + 1]
            body = segment.memory[end : end + words[place + 2] - 1] if words[place + 2] else None
            found.append(headers(segment.memory[start:end], body))
            count += len(found[-1])
        return [header for run in reversed(found) for header in run][-limit:]

    def _write(self, size: int, header: int, payloads: int, data: bytes) -> None:
        segment = self._segment
        words = segment.words
        to = words[Head.HISTORY_TO]
        position = words[Head.HISTORY_FROM]
        while to + size - position > Head.HISTORY_WORDS:
            position += words[Head.HISTORY + position % Head.HISTORY_WORDS]
        words[Head.HISTORY_FROM] = position
        place = Head.HISTORY + to % Head.HISTORY_WORDS
        words[place] = size
        if size >= _BEFORE:
            words[place + 1] = header
            words[place + 2] = payloads
            start = (place + _BEFORE) * 8
            segment.memory[start : start + len(data)] = data
        words[Head.HISTORY_TO] = to + size
