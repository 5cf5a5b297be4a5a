"""Reads how a run went along from its own folder: rows where its process wrote them there, else the events that it told."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Generic, TypeVar

from application.ports.run_series import RunSeries
from domain.models.run import Run, RunKind
from domain.models.run_event import is_run_id
from infrastructure.private_files import opened_folder
from infrastructure.runs.file_run_record import EVENTS_FILE
from infrastructure.runs.followed_lines import FollowedLines
from infrastructure.runs.run_documents import read_event
from infrastructure.runs.run_processes import OUTPUT_FOLDER
from infrastructure.runs.series_books import CYCLES, EVENTS, MESSAGES, TICKS, OpinionBook, RowShape, SeriesBook

__all__ = ["MAX_BYTES_A_LOOK", "FileRunSeries"]

MAX_BYTES_A_LOOK = 4 * 1024 * 1024
_MAX_FOLLOWED = 32
_SESSION = re.compile(r"session_[A-Za-z0-9._-]{1,64}")

_ROWS: dict[RunKind, tuple[str, RowShape]] = {
    RunKind.POPULATION: ("ticks.jsonl", TICKS),
    RunKind.SOAK: ("stability-metrics.jsonl", CYCLES),
    RunKind.SWARM: ("traces.jsonl", MESSAGES),
}
_EVENTS_OF: dict[RunKind, str] = {
    RunKind.POPULATION: "population.progress",
    RunKind.SOAK: "soak.cycle_ended",
    RunKind.SWARM: "swarm.progress",
    RunKind.PANTHEON: "pantheon.cycle_ended",
}
_SAMPLES = "samples.jsonl"

_Book = TypeVar("_Book")


class FileRunSeries:
    """A `RunSeriesReader` over the folder of all runs, which goes on where it ended the last time.

    Every name is one of this file's own; each folder on the way is opened within the one before and never through a link. One look reads
    at most `MAX_BYTES_A_LOOK` of each file, and remembers where it stands for the 32 runs that were asked for last.
    """

    def __init__(self, folder: Path, *, bytes_a_look: int = MAX_BYTES_A_LOOK) -> None:
        """`folder` is that of all runs; it may not be there yet."""
        self._folder = folder
        self._bytes = bytes_a_look
        self._turn = threading.Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()

    def read(self, run: Run) -> RunSeries:
        """As in `RunSeriesReader`. One look at a run at a time."""
        if not is_run_id(run.id):
            return RunSeries()
        with self._turn:
            followed = self._followed.pop(run.id, None) or _Followed(run.id, run.kind)
            self._followed[run.id] = followed
            while len(self._followed) > _MAX_FOLLOWED:
                self._followed.popitem(last=False)
        with followed.turn:
            try:
                with opened_folder(self._folder) as runs, opened_folder(run.id, within=runs) as found:
                    followed.look(found, limit=self._bytes)
            except OSError:
                # Removed meanwhile, or no folder: what was read stays.
                followed.is_whole = True
            return followed.series()


class _FollowedBook(Generic[_Book]):
    """What is kept of a growing file; where the file turns out to be another one, it is begun anew."""

    def __init__(self, name: str, new: Callable[[], _Book]) -> None:
        self.book = new()
        self._new = new
        self._lines = FollowedLines(name)
        self._generation = self._lines.generation

    def look(self, folder: int, take: Callable[[_Book, bytes], None], *, limit: int) -> bool:
        """Take the next lines, of at most `limit` bytes; whether those were all there are. Raises `OSError`."""
        for line in self._lines.look(folder, limit=limit):
            if self._lines.generation != self._generation:
                self.book, self._generation = self._new(), self._lines.generation
            take(self.book, line)
        return self._lines.is_whole


class _Followed:
    """One run, as far as it was read."""

    def __init__(self, run_id: str, kind: RunKind) -> None:
        self.turn = threading.Lock()
        self.is_whole = True
        self._run_id = run_id
        self._kind = kind
        self._rows: _FollowedBook[SeriesBook] | None = None
        if kind in _ROWS:
            name, shape = _ROWS[kind]
            self._rows = _FollowedBook(name, lambda: SeriesBook(shape))
        self._opinions = _FollowedBook(_SAMPLES, OpinionBook)
        self._events = _FollowedBook(EVENTS_FILE, lambda: SeriesBook(EVENTS[_EVENTS_OF[kind]]))

    def look(self, folder: int, *, limit: int) -> None:
        if self._rows is not None:
            with suppress(OSError):
                self._read_rows(self._rows, folder, limit)
            if self._rows.book.is_begun:
                return
        try:
            self.is_whole = self._events.look(folder, self._take_event, limit=limit)
        except OSError:
            self.is_whole = True

    def series(self) -> RunSeries:
        book = self._events.book
        if self._rows is not None and self._rows.book.is_begun:
            book = self._rows.book
        opinions = self._opinions.book
        return book.series(is_whole=self.is_whole, opinions=opinions.distributions, moments=opinions.moments)

    def _take_event(self, book: SeriesBook, line: bytes) -> None:
        event = read_event(line, run_id=self._run_id)
        if event is not None and event.type == _EVENTS_OF[self._kind]:
            book.take_row({**event.data, "at": event.at.isoformat()})

    def _read_rows(self, rows: _FollowedBook[SeriesBook], folder: int, limit: int) -> None:
        """The rows that the run has written. Raises `OSError` where it has written none."""
        with ExitStack() as stack:
            within = stack.enter_context(opened_folder(OUTPUT_FOLDER, within=folder))
            if self._kind is RunKind.SWARM:
                within = stack.enter_context(opened_folder(_session_in(within), within=within))
            self.is_whole = rows.look(within, SeriesBook.take, limit=limit)
            if self._kind is RunKind.POPULATION:
                are_all = self._opinions.look(within, OpinionBook.take, limit=limit)
                self.is_whole = self.is_whole and are_all


def _session_in(folder: int) -> str:
    """The folder of the session that was written to; a run over REST has one. Raises `FileNotFoundError`."""
    names = sorted(filter(_SESSION.fullmatch, os.listdir(folder)))
    if not names:
        raise FileNotFoundError("there is no session")
    return names[0]
