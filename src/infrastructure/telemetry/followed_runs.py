"""Follows a file of counts in the folder of every run: read when it has changed, and no more once its run has ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from domain.models.run_event import is_run_id
from infrastructure.private_files import opened_folder, read_file
from infrastructure.runs.file_run_record import RUN_FILE
from infrastructure.runs.run_documents import read_object, read_run
from infrastructure.runs.run_locks import LAUNCHER, PROCESS, is_held

__all__ = ["FollowedRuns", "Take"]

Take: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Gets the id of a run and the counts that it wrote last, whatever they are."""

_MAX_BYTES = 64 * 1024
_MAX_RUN_BYTES = 256 * 1024
# More than that many runs at once are no runs of ours.
_MAX_RUNS = 10_000


@dataclass(slots=True)
class _Known:
    stamp: tuple[int, int, int] | None = None
    ended: bool = False


class FollowedRuns:
    """Reads of each run what is new since the last time, so that a look costs little. One look at a time."""

    def __init__(self, folder: Path, name: str) -> None:
        """`folder` is that of all runs, which may not be there yet; `name` that of the file."""
        self._folder = folder
        self._name = name
        self._known: dict[str, _Known] = {}

    @property
    def known(self) -> frozenset[str]:
        """The runs that there were at the last look."""
        return frozenset(self._known)

    def going_on(self) -> frozenset[str]:
        """Those of them that were under way."""
        return frozenset(name for name, known in self._known.items() if not known.ended)

    def look(self, take: Take) -> None:
        """Hand over what is new; a folder that cannot be read has nothing new."""
        try:
            with opened_folder(self._folder) as runs:
                names = set(filter(is_run_id, os.listdir(runs)))  # noqa: PTH208 - by descriptor
                for name in sorted(names, reverse=True)[:_MAX_RUNS]:
                    known = self._known.setdefault(name, _Known())
                    if not known.ended:
                        self._look_at(name, runs, known, take)
        except OSError:
            return
        self._known = {name: known for name, known in self._known.items() if name in names}

    def _look_at(self, name: str, runs: int, known: _Known, take: Take) -> None:
        try:
            with opened_folder(name, within=runs) as found:
                # Asked before the counts are read: those of a run that has ended are its last ones then.
                ended = not _goes_on(name, found)
                stamp = self._stamp(found)
                if stamp is not None and stamp != known.stamp:
                    document = read_object(read_file(self._name, within=found, limit=_MAX_BYTES))
                    if document is not None:
                        take(name, document)
                    known.stamp = stamp
                known.ended = ended
        except OSError:
            # A link, a file, or a run that was removed just now.
            known.ended = True

    def _stamp(self, found: int) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._name, dir_fd=found, follow_symlinks=False)
        except OSError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _goes_on(name: str, found: int) -> bool:
    run = read_run(read_file(RUN_FILE, within=found, limit=_MAX_RUN_BYTES), run_id=name)
    if run is None or run.status.is_terminal:
        return False
    return is_held(PROCESS, within=found) or is_held(LAUNCHER, within=found)
