"""Reads how a run went along from its own folder: rows where its process wrote them there, else the events that it told."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from contextlib import ExitStack
from pathlib import Path

from application.ports.run_series import RunSeries
from domain.models.run import Run, RunKind
from domain.models.run_event import is_run_id
from infrastructure.runs.file_run_record import EVENTS_FILE
from infrastructure.runs.followed_lines import FollowedLines
from infrastructure.runs.private_files import opened_folder
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


class _Followed:
    """One run, as far as it was read."""

    def __init__(self, run_id: str, kind: RunKind) -> None:
        self.turn = threading.Lock()
        self.is_whole = True
        self._run_id = run_id
        self._kind = kind
        self._rows = FollowedLines(_ROWS[kind][0]) if kind in _ROWS else None
        self._row_book: SeriesBook | None = None
        self._row_generation = 0
        self._samples = FollowedLines(_SAMPLES)
        self._opinions = OpinionBook()
        self._opinion_generation = 0
        self._events = FollowedLines(EVENTS_FILE)
        self._event_book = self._new_event_book()
        self._event_generation = self._events.generation

    def look(self, folder: int, *, limit: int) -> None:
        if self._has_rows(folder, limit):
            return
        try:
            for line in self._events.look(folder, limit=limit):
                if self._events.generation != self._event_generation:
                    self._event_book, self._event_generation = self._new_event_book(), self._events.generation
                event = read_event(line, run_id=self._run_id)
                if event is not None and event.type == _EVENTS_OF[self._kind]:
                    self._event_book.take_row({**event.data, "at": event.at.isoformat()})
        except OSError:
            self.is_whole = True
            return
        self.is_whole = self._events.is_whole

    def series(self) -> RunSeries:
        book = self._event_book
        if self._row_book is not None and self._row_book.is_begun:
            book = self._row_book
        return book.series(
            is_whole=self.is_whole, opinions=self._opinions.distributions, moments=self._opinions.moments
        )

    def _new_event_book(self) -> SeriesBook:
        return SeriesBook(EVENTS[_EVENTS_OF[self._kind]])

    def _has_rows(self, folder: int, limit: int) -> bool:
        """Whether the run has written rows; then those are read."""
        if self._rows is None:
            return False
        with ExitStack() as stack:
            try:
                within = stack.enter_context(opened_folder(OUTPUT_FOLDER, within=folder))
                if self._kind is RunKind.SWARM:
                    within = stack.enter_context(opened_folder(_session_in(within), within=within))
                self._read_rows(within, limit)
            except OSError:
                return self._row_book is not None and self._row_book.is_begun
        return self._row_book is not None and self._row_book.is_begun

    def _read_rows(self, folder: int, limit: int) -> None:
        assert self._rows is not None  # noqa: S101 - asked before
        for line in self._rows.look(folder, limit=limit):
            if self._row_book is None or self._rows.generation != self._row_generation:
                self._row_book, self._row_generation = SeriesBook(_ROWS[self._kind][1]), self._rows.generation
            self._row_book.take(line)
        self.is_whole = self._rows.is_whole
        if self._kind is not RunKind.POPULATION:
            return
        for line in self._samples.look(folder, limit=limit):
            if self._samples.generation != self._opinion_generation:
                self._opinions, self._opinion_generation = OpinionBook(), self._samples.generation
            self._opinions.take(line)
        self.is_whole = self.is_whole and self._samples.is_whole


def _session_in(folder: int) -> str:
    """The folder of the session that was written to; a run over REST has one. Raises `FileNotFoundError`."""
    names = sorted(filter(_SESSION.fullmatch, os.listdir(folder)))
    if not names:
        raise FileNotFoundError("there is no session")
    return names[0]
