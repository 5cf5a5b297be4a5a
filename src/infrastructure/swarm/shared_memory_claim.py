"""The claim of a process on its session's place in shared memory, by which what a killed one left is told from what is used."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from domain.errors.configuration import ConfigurationError
from domain.models.swarm import is_session

__all__ = ["SharedMemoryClaim"]

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class SharedMemoryClaim:
    """A file beside the folders of a session, locked by all who use them; the kernel lets go of it however they die.

    A session without such a file is never swept, and neither is one whose file is locked or belongs to another user.
    """

    def __init__(self, folder: Path, session: str) -> None:
        """`folder` is where sessions have their places, as /dev/shm."""
        self._folder = folder
        self._session = session
        self._prefix = f"conclave-lock-{os.geteuid()}-swarm-"

    @contextmanager
    def held(self) -> Iterator[None]:
        """For who runs the session. Removes what sessions of dead processes left, and in the end the folder of a file bus.

        Raises `ConfigurationError` where a living process has the session, and `OSError`. Does nothing without shared memory.
        """
        if not self._folder.is_dir():
            yield
            return
        claim = self._folder / f"{self._prefix}{self._session}"
        lock = _locked(claim, create=True)
        if lock is None:
            raise ConfigurationError(
                variable="--session",
                problem=f"a session {self._session!r} runs on that bus",
                remedy="Give another one, or none.",
            )
        try:
            # From here on others may share it.
            fcntl.flock(lock, fcntl.LOCK_SH)
            self._sweep()
            yield
        finally:
            # A bus in shared memory goes with the last who has it open.
            _remove(self._folder / f"conclave-swarm-{self._session}")
            claim.unlink(missing_ok=True)
            os.close(lock)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """For who joins the session, where its claim is to be found: its folders are not swept meanwhile."""
        lock = -1
        with contextlib.suppress(OSError):
            lock = os.open(self._folder / f"{self._prefix}{self._session}", _OPEN)
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        try:
            yield
        finally:
            if lock >= 0:
                os.close(lock)

    def _sweep(self) -> None:
        for claim in self._folder.glob(f"{self._prefix}*"):
            session = claim.name.removeprefix(self._prefix)
            if session == self._session or not is_session(session):
                continue
            with contextlib.suppress(OSError):
                lock = _locked(claim, create=False)
                if lock is None:
                    continue
                try:
                    for name in (f"conclave-swarm-{session}", f"conclave-{os.geteuid()}-swarm-{session}"):
                        _remove(self._folder / name)
                    claim.unlink(missing_ok=True)
                finally:
                    os.close(lock)


def _remove(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        found = place.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
            shutil.rmtree(place, ignore_errors=True)


def _locked(path: Path, *, create: bool) -> int | None:
    """The file, open and locked; None while somebody else has it. Raises `OSError`."""
    while True:
        lock = os.open(path, _OPEN | (os.O_CREAT if create else 0), 0o600)
        try:
            found = os.fstat(lock)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                os.close(lock)
                return None
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        # It was removed between being opened and being locked.
        os.close(lock)
