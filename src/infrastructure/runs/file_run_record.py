"""A run as the process has it that does its work: notes are handed to a thread, which alone writes, so that no disk holds up the work."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from application.ports.run_registry import Unwanted
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, Run
from domain.models.run_event import RunEvent, may_be_noted, run_event_type
from infrastructure.private_files import open_entry, read_file, replace_file
from infrastructure.runs.run_documents import (
    bus_document,
    encode,
    event_line,
    population_document,
    read_event,
    run_document,
)
from infrastructure.runs.run_locks import LAUNCHER, RunLock, is_held

__all__ = [
    "BUS_FILE",
    "CANCEL_FILE",
    "EVENTS_FILE",
    "MAX_EVENTS_BYTES",
    "MAX_EVENT_BYTES",
    "MAX_RESULT_BYTES",
    "POPULATION_FILE",
    "RESULT_FILE",
    "RUN_FILE",
    "EventsFile",
    "FileRunRecord",
]

_logger = logging.getLogger(__name__)

RUN_FILE, RESULT_FILE, EVENTS_FILE = "run.json", "result.json", "events.jsonl"
BUS_FILE, POPULATION_FILE, CANCEL_FILE = "bus.json", "population.json", "cancel"
_RESERVE_FILE = "reserve"

MAX_EVENT_BYTES = 64 * 1024
MAX_EVENTS_BYTES = 64 * 1024 * 1024
MAX_RESULT_BYTES = 16 * 1024 * 1024
_TAIL_BYTES = 256 * 1024
_MAX_WAITING = 10_000
_WRITE_EVERY_S = 0.05
_MAX_WORDS = 64
# Enough for the last lines and an ordinary result, kept free for the moment when the disk is full.
_RESERVE_BYTES = 128 * 1024
# What an event that ends a run may still take where no other event has room.
_LAST_BYTES = 64 * 1024


class EventsFile:
    """The events of a run, each whole and with the next number, or not there at all. One writer at a time."""

    def __init__(self, run_id: str, *, within: int) -> None:
        """Open or make it, and cut off what a killed writer left half-written. Raises `OSError`."""
        self._run_id = run_id
        self._file = open_entry(EVENTS_FILE, os.O_RDWR | os.O_CREAT, within=within)
        self.last: RunEvent | None = None
        try:
            self._size = self._whole()
            os.ftruncate(self._file, self._size)
        except BaseException:
            os.close(self._file)
            raise

    def append(self, at: datetime, type: str, data: Mapping[str, JsonValue], *, last: bool = False) -> None:  # noqa: A002
        """Write one, wholly or not at all.

        Raises `OSError` where it does not fit, `ValueError` and `TypeError` for data that is no JSON.
        """
        event = RunEvent(self._run_id, 1 if self.last is None else self.last.sequence + 1, type, at, data)
        line = event_line(event)
        if len(line) > MAX_EVENT_BYTES:
            raise ValueError(f"an event of {len(line)} bytes is too long")
        if self._size + len(line) > MAX_EVENTS_BYTES + (_LAST_BYTES if last else 0):
            raise ValueError("the events of the run are as many as may be kept")
        try:
            _write_all(self._file, line, at=self._size)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise
        self._size += len(line)
        self.last = event

    def close(self) -> None:
        """Write no more."""
        os.close(self._file)

    def _whole(self) -> int:
        """How many bytes there are up to the end of the last line that is an event."""
        size = os.fstat(self._file).st_size
        # In the end there is a whole line, unless somebody else wrote into the file.
        return self._whole_from(max(0, size - _TAIL_BYTES), size) or self._whole_from(0, size)

    def _whole_from(self, offset: int, size: int) -> int:
        found, rest = 0, b""
        while offset < size and (piece := os.pread(self._file, _TAIL_BYTES, offset)):
            offset += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            at = offset - len(rest) - sum(len(line) + 1 for line in lines)
            for line in lines:
                at += len(line) + 1
                event = read_event(line, run_id=self._run_id)
                if event is not None:
                    self.last, found = event, at
            # Nothing that long is an event, but the end of it has to be found.
            rest = rest[-1:] if len(rest) > MAX_EVENT_BYTES else rest
        return found


class FileRunRecord:
    """A `RunRecord` in a folder of its own. A full disk costs notes, never the work: they are counted, and the end says how many."""

    def __init__(
        self,
        run: Run,
        *,
        folder: int,
        lock: RunLock,
        launched: bool,
        now: Callable[[], datetime],
    ) -> None:
        """`folder` and `lock` become this object's own. Raises `OSError`."""
        self.id = run.id
        self._run = run
        self._folder = folder
        self._lock = lock
        self._launched = launched
        self._now = now
        self._events = EventsFile(run.id, within=folder)
        self._turn = threading.Lock()
        self._waiting: deque[tuple[datetime, str, Mapping[str, JsonValue]]] = deque()
        self._counts: dict[str, BusStats] = {}
        self._fresh: set[str] = set()
        self._tally: PopulationCounts | None = None
        self._lost = 0
        self._problem = ""
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._ended = False
        try:
            self._reserve()
            self._store_now(run)
            self._events.append(self._now(), run_event_type(run.status), {})
        except BaseException:
            self._events.close()
            raise
        self._thread = threading.Thread(target=self._write_for_ever, name="run-record", daemon=True)
        self._thread.start()

    @property
    def run(self) -> Run:
        """The run as it is recorded."""
        return self._run

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        """As in `RunObserver`."""
        if not may_be_noted(type):
            _logger.error("%r is no type of an event that a run may note", type)
            self._lose("a type that is none")
            return
        with self._turn:
            if self._ended:
                return
            if len(self._waiting) >= _MAX_WAITING:
                self._lose("more at once than can be written")
                return
            # What is done with the data after this is not what was noted.
            self._waiting.append((self._now(), type, dict(data)))
        self._wake.set()

    def count(self, stats: BusStats) -> None:
        """As in `RunObserver`."""
        with self._turn:
            if self._ended:
                return
            self._counts[stats.transport] = stats
            self._fresh.add(stats.transport)
        self._wake.set()

    def tally(self, counts: PopulationCounts) -> None:
        """As in `RunObserver`."""
        with self._turn:
            if self._ended:
                return
            self._tally = counts.copy()
        self._wake.set()

    def unwanted(self) -> Unwanted | None:
        """As in `RunRecord`."""
        said = read_file(CANCEL_FILE, within=self._folder, limit=_MAX_WORDS)
        if said is not None:
            return Unwanted.HALTED if said == Unwanted.HALTED.name.encode() else Unwanted.CANCELLED
        orphaned = self._launched and not is_held(LAUNCHER, within=self._folder)
        return Unwanted.ORPHANED if orphaned else None

    def end(
        self,
        status: DeliberationStatus,
        *,
        at: datetime,
        result: Mapping[str, JsonValue] | None = None,
        reason: str | None = None,
    ) -> Sequence[str]:
        """As in `RunRecord`."""
        with self._turn:
            if self._ended:
                return ()
            self._ended = True
        self._ending.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        with contextlib.suppress(OSError):
            os.unlink(_RESERVE_FILE, dir_fd=self._folder)
        self._write_waiting()
        missing = []
        if result is not None and (problem := self._store_result(result)):
            missing.append(f"its result could not be kept: {problem}")
            reason = reason or "its result could not be kept"
        self._run = replace(self._run, status=status, finished_at=at, reason=reason)
        try:
            self._store_now(self._run, synced=True)
        except (OSError, ValueError, TypeError) as error:
            missing.append(f"its end could not be recorded: {_words(error)}")
        else:
            self._append(at, run_event_type(status), _last_words(reason, self._lost), last=True)
        if self._lost:
            missing.append(f"{self._lost} of its events could not be recorded: {self._problem}")
        return missing

    def close(self) -> None:
        """As in `RunRecord`. A run that was not ended has failed from here on."""
        with self._turn:
            self._ended = True
        self._ending.set()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._events.close()
        self._lock.close()
        os.close(self._folder)

    def _reserve(self) -> None:
        with contextlib.suppress(OSError):
            descriptor = open_entry(_RESERVE_FILE, os.O_WRONLY | os.O_CREAT, within=self._folder)
            try:
                # macOS has it not, and there a full disk may cost the end of the run.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
            finally:
                os.close(descriptor)

    def _store_now(self, run: Run, *, synced: bool = False) -> None:
        replace_file(RUN_FILE, encode(run_document(run)), within=self._folder, synced=synced)

    def _store_result(self, result: Mapping[str, JsonValue]) -> str:
        try:
            content = encode(result)
            if len(content) > MAX_RESULT_BYTES:
                return f"it has {len(content)} bytes, and {MAX_RESULT_BYTES} are kept"
            replace_file(RESULT_FILE, content, within=self._folder, synced=True)
        except (OSError, ValueError, TypeError) as error:
            return _words(error)
        return ""

    def _write_for_ever(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._wake.clear()
            self._write_waiting()
            # What comes in the meantime is written together.
            self._ending.wait(_WRITE_EVERY_S)

    def _write_waiting(self) -> None:
        while True:
            with self._turn:
                tally, self._tally = self._tally, None
                waiting = self._waiting.popleft() if self._waiting else None
                if waiting is None:
                    fresh = dict(self._counts) if self._fresh else {}
                    self._fresh.clear()
            # Before the event that tells of it, so that who has read the event finds it counted.
            if tally is not None:
                self._keep_counts(POPULATION_FILE, population_document(tally))
            if waiting is None:
                break
            self._append(*waiting)
        if fresh:
            self._keep_counts(BUS_FILE, bus_document(fresh))

    def _keep_counts(self, name: str, document: Mapping[str, JsonValue]) -> None:
        try:
            replace_file(name, encode(document), within=self._folder)
        except (OSError, ValueError, TypeError) as error:
            # Counts are whole each time, so that the next ones make up for these.
            _logger.warning("the counts in the run's %s were not kept: %s", name, _words(error))

    def _append(self, at: datetime, type: str, data: Mapping[str, JsonValue], *, last: bool = False) -> None:  # noqa: A002
        try:
            self._events.append(at, type, data, last=last)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self._lose(_words(error))

    def _lose(self, problem: str) -> None:
        if not self._lost:
            _logger.warning("an event of the run was not recorded: %s", problem)
        self._lost += 1
        self._problem = self._problem or problem


def _write_all(file: int, content: bytes, *, at: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, at)
        at, rest = at + written, rest[written:]


def _last_words(reason: str | None, lost: int) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    if reason is not None:
        found["reason"] = reason
    if lost:
        found["events_lost"] = lost
    return found


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
