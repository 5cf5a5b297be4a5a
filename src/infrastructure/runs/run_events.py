"""Reads the events of runs from their files, each time from where the last look ended that asks for what follows."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import BinaryIO

from domain.models.run_event import RunEvent
from infrastructure.private_files import open_entry
from infrastructure.runs.file_run_record import EVENTS_FILE, MAX_EVENT_BYTES
from infrastructure.runs.run_documents import read_event

__all__ = ["RunEvents"]

_BUFFER_BYTES = 256 * 1024
_MAX_OFFSETS = 1_000
_SEQUENCE = re.compile(rb'\{"sequence":([0-9]{1,15}),')


class RunEvents:
    """The events of all runs of a folder. What is half-written is not there yet, and garbage is passed over.

    May be asked from several threads.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        # Where in its file the event after that sequence number of a run begins.
        self._offsets: OrderedDict[tuple[str, int], int] = OrderedDict()

    def read(self, run_id: str, *, within: int, after: int, limit: int) -> Sequence[RunEvent]:
        """At most `limit` events of the run in that folder with a greater sequence than `after`, in order; none where none can be read."""
        events: list[RunEvent] = []
        try:
            file = os.fdopen(open_entry(EVENTS_FILE, os.O_RDONLY, within=within), "rb", buffering=_BUFFER_BYTES)
        except OSError:
            return events
        with file:
            last, offset = after, self._offset_of(run_id, after)
            file.seek(offset)
            while len(events) < limit and (line := _next_line(file)):
                offset += len(line)
                if _is_before(line, last + 1):
                    continue
                event = read_event(line, run_id=run_id)
                if event is not None and event.sequence == last + 1:
                    events.append(event)
                    last += 1
            self._note_offset(run_id, last, offset)
        return events

    def _offset_of(self, run_id: str, after: int) -> int:
        with self._turn:
            return self._offsets.get((run_id, after), 0)

    def _note_offset(self, run_id: str, after: int, offset: int) -> None:
        with self._turn:
            self._offsets[run_id, after] = offset
            self._offsets.move_to_end((run_id, after))
            while len(self._offsets) > _MAX_OFFSETS:
                self._offsets.popitem(last=False)


def _next_line(file: BinaryIO) -> bytes:
    """The next whole line, however long; nothing where there is none."""
    line = bytearray(file.readline(MAX_EVENT_BYTES + 1))
    while len(line) > MAX_EVENT_BYTES and not line.endswith(b"\n") and (more := file.readline(MAX_EVENT_BYTES + 1)):
        line += more
    return bytes(line) if line.endswith(b"\n") else b""


def _is_before(line: bytes, sequence: int) -> bool:
    """Whether that line is certainly an event that came before, seen without reading all of it."""
    found = _SEQUENCE.match(line)
    return found is not None and int(found[1]) < sequence
