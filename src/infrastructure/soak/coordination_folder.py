"""The coordination folder of a soak: opened without following a link, with files that are whole or not there, and for one run at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.soak.file_agent import MOST_BYTES

__all__ = ["PLACES", "CoordinationFolder", "Found", "UnreadableFileError", "remove_abandoned"]

PLACES = ("messages", "responses", "status", "drafts")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512
# A younger folder may be one whose run has not locked it yet.
_ABANDONED_AFTER_S = 60.0


class UnreadableFileError(Exception):
    """What stands there is no file that can be read as what it should be."""


class Found:
    """One entry of a place; `identity` changes when another file takes its name or its content is written anew.

    `written_at` is when that was, in seconds since 1970.
    """

    __slots__ = ("identity", "is_file", "is_link", "name", "written_at")

    def __init__(self, name: str, status: os.stat_result) -> None:
        self.name = name
        self.is_link = stat.S_ISLNK(status.st_mode)
        self.is_file = stat.S_ISREG(status.st_mode)
        self.identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        self.written_at = status.st_mtime


class CoordinationFolder:
    """Readable by this user alone where it is made here. Names are looked up below folders that were opened without following a link."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = -1
        self._places: dict[str, int] = {}
        self._lock = -1

    def open(self) -> None:
        """Make what is missing, and take the folder for this run alone. Raises `ConfigurationError`, `DependencyUnavailableError`."""
        with self._in_words():
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = os.open(self.path, _FOLDER)
            for name in PLACES:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=self._root)
                self._places[name] = os.open(name, _FOLDER, dir_fd=self._root)
            self._lock = os.open(
                "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._root
            )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise self.refused("another soak runs there") from error

    def close(self) -> None:
        """Let go of it. Files stay."""
        for file in (*self._places.values(), self._lock, self._root):
            if file >= 0:
                os.close(file)
        self._places = {}
        self._root = self._lock = -1

    def is_deserted(self) -> bool:
        """Whether all agents are gone that an earlier run has forked: they share a lock on `status/` for as long as one of them lives."""
        status = self._places["status"]
        try:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            # A file system that locks no folders.
            return True
        fcntl.flock(status, fcntl.LOCK_UN)
        return True

    @property
    def is_open(self) -> bool:
        """Whether it is this run's now."""
        return self._root >= 0

    def path_of(self, place: str) -> str:
        """Where that place lies, for who watches it."""
        return str(self.path / place)

    def write(self, place: str, name: str, content: bytes) -> None:
        """The whole file under its name, in place of another, or nothing at all. Raises `OSError`."""
        drafts = self._places["drafts"]
        file = os.open(name, _WRITE, 0o600, dir_fd=drafts)
        try:
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(file, view) :]
            finally:
                os.close(file)
            os.rename(name, name, src_dir_fd=drafts, dst_dir_fd=self._places[place] if place else self._root)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=drafts)
            raise

    def read(self, place: str, name: str) -> tuple[bytes, tuple[int, int, int]]:
        """A file and its identity. Raises `FileNotFoundError`, and `UnreadableFileError` for what is no plain file of a sensible size."""
        try:
            file = os.open(name, _READ, dir_fd=self._places[place])
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnreadableFileError(error.strerror or "cannot be opened") from error
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableFileError("is no plain file")
            if status.st_size > MOST_BYTES:
                raise UnreadableFileError(f"has {status.st_size} bytes")
            content = os.read(file, MOST_BYTES)
        except OSError as error:
            raise UnreadableFileError(error.strerror or "cannot be read") from error
        finally:
            os.close(file)
        return content, (status.st_ino, status.st_mtime_ns, status.st_size)

    def look(self, place: str) -> Iterator[Found]:
        """What is in a place, links as links."""
        folder = self._places[place]
        for name in os.listdir(folder):  # noqa: PTH208 - of an open folder
            with contextlib.suppress(FileNotFoundError):
                yield Found(name, os.stat(name, dir_fd=folder, follow_symlinks=False))

    def remove(self, place: str, name: str) -> None:
        """Remove a file or a link; folders stay."""
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
            os.unlink(name, dir_fd=self._places[place])

    def size_bytes(self) -> int:
        """What all files take, in whole blocks."""
        total = 0
        for folder in self._places.values():
            for name in os.listdir(folder):  # noqa: PTH208 - of an open folder
                with contextlib.suppress(OSError):
                    total += os.stat(name, dir_fd=folder, follow_symlinks=False).st_blocks * _BLOCK
        return total

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            where = str(error.filename) if error.filename else str(self.path)
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST):
                raise _unusable(f"{where!r} is a link or no folder", "Remove it, or give another one.") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise _unusable(
                    f"{where!r} may not be written to by this user", "Give the rights to it, or another --coord-dir."
                ) from error
            raise DependencyUnavailableError(
                dependency=f"the coordination folder {str(self.path)!r}",
                problem=error.strerror or "it cannot be opened",
                remedy="Free space there, or give another --coord-dir.",
            ) from error

    def refused(self, problem: str) -> ConfigurationError:
        """What a run is told that may not have it now."""
        return _unusable(problem, "Wait for its end, or give another folder with --coord-dir.")


def remove_abandoned(folders: Iterable[Path], *, now: Callable[[], float] = time.time) -> None:
    """Remove those of these coordination folders that belong to this user and to no run any more: one that was killed removes nothing."""
    for folder in folders:
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if (
                not stat.S_ISDIR(found.st_mode)
                or found.st_uid != os.geteuid()
                or now() - found.st_mtime < _ABANDONED_AFTER_S
            ):
                continue
            lock = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _unusable(problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(variable="--coord-dir", problem=problem, remedy=remedy)
