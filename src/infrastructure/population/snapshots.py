"""Snapshots of the columns of a population: written beside the ticks, checked to the last byte when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import PopulationFolderError

__all__ = ["DamagedSnapshotError", "Snapshots"]

_MAGIC = b"conclave population snapshot 1\n"
_NAME = re.compile(r"tick-(\d{10})\.snapshot")
_KEPT = 3
_PIECE = 1 << 22


class DamagedSnapshotError(Exception):
    """What lies there is no whole snapshot."""


class Snapshots:
    """The last few snapshots of one population in a folder of their own, each there as a whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ticks(self) -> list[int]:
        """The ticks that there are snapshots of, the first one first."""
        names = (_NAME.fullmatch(entry.name) for entry in self._folder.iterdir()) if self._folder.is_dir() else ()
        return sorted(int(name[1]) for name in names if name)

    def path(self, tick: int) -> Path:
        """Where the snapshot of that tick lies."""
        return self._folder / f"tick-{tick:010d}.snapshot"

    def write(self, tick: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Keep these columns, and let go of all but the last three. Raises `PopulationFolderError`."""
        path = self.path(tick)
        beside = path.with_suffix(".new")
        try:
            self._folder.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                _write_to(file, tick, columns)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            for old in self.ticks()[:-_KEPT]:
                self.path(old).unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise PopulationFolderError(
                folder=str(self._folder),
                problem=f"took no snapshot of tick {tick} ({error.strerror})",
                remedy="Make room there and resume: the snapshot before it is kept.",
            ) from error

    def read(self, tick: int) -> dict[str, NDArray[Any]]:
        """The columns after that tick. Raises `DamagedSnapshotError`."""
        try:
            with self.path(tick).open("rb") as file:
                if file.readline() != _MAGIC:
                    raise DamagedSnapshotError("does not begin as a snapshot does")
                head = json.loads(file.readline(1 << 20))
                found = {name: _column_from(file, about) for name, about in head["columns"].items()}
                if head["tick"] != tick or file.read(1):
                    raise DamagedSnapshotError("is not the snapshot that its name says")
                if not _are_opinions(found.get("opinion")):
                    raise DamagedSnapshotError("holds opinions that are none from 0 to 1")
                return found
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedSnapshotError(f"cannot be read ({error})") from error

    def last_good(self, ticks: Iterable[int]) -> int:
        """The last of these ticks whose snapshot is whole, 0 where none is."""
        for tick in sorted(ticks, reverse=True):
            with contextlib.suppress(DamagedSnapshotError):
                self.read(tick)
                return tick
        return 0

    def clear(self) -> None:
        """Let go of all."""
        self.drop_after(-1)

    def drop_after(self, tick: int) -> None:
        """Let go of those of later ticks, and of what a kill left unfinished."""
        for unfinished in self._folder.glob("tick-*.new"):
            unfinished.unlink(missing_ok=True)
        for later in self.ticks():
            if later > tick:
                self.path(later).unlink(missing_ok=True)


def _are_opinions(column: NDArray[Any] | None) -> bool:
    """Whether all of them are numbers from 0 to 1, which a NaN is not."""
    return column is None or (column.dtype == np.float64 and bool(((column >= 0.0) & (column <= 1.0)).all()))


def _write_to(file: Any, tick: int, columns: Mapping[str, NDArray[Any]]) -> None:
    about = {
        name: {"dtype": column.dtype.str, "shape": list(column.shape), "digest": _digest(_bytes_of(column))}
        for name, column in columns.items()
    }
    file.write(_MAGIC + json.dumps({"tick": tick, "columns": about}).encode() + b"\n")
    for column in columns.values():
        file.write(_bytes_of(column))


def _column_from(file: Any, about: Mapping[str, Any]) -> NDArray[Any]:
    column = np.zeros(tuple(about["shape"]), np.dtype(about["dtype"]))
    content = _bytes_of(column)
    if file.readinto(content) != len(content) or _digest(content) != about["digest"]:
        raise DamagedSnapshotError("does not hold what was written to it")
    return column


def _bytes_of(column: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(column).reshape(-1).view(np.uint8).data


def _digest(content: memoryview) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for start in range(0, len(content), _PIECE):
        digest.update(content[start : start + _PIECE])
    return digest.hexdigest()
