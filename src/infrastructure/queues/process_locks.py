"""Tells which processes of this machine are dead: each holds a lock on a file of its own for as long as it lives."""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

__all__ = ["ProcessLocks"]

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"[0-9a-f]{32}")


class ProcessLocks:
    """A `ProcessRegistry` over a folder that the processes of one machine share. The kernel lets a lock go with its process.

    Processes that use another folder are not known here: what they held is free once their leases have run out.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder and this process' file in it. Raises `OSError`."""
        self.own = uuid4().hex
        self._folder = folder
        self._unreadable: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody sees the file before it is locked, so nobody takes this process for dead meanwhile.
        unseen = folder / f"{self.own}.new"
        self._file = os.open(unseen, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unseen.rename(folder / self.own)

    def close(self) -> None:
        """This process holds nothing any more."""
        (self._folder / self.own).unlink(missing_ok=True)
        os.close(self._file)

    def dead(self) -> Sequence[str]:
        """The names of those whose file nobody holds."""
        return [
            each.name
            for each in sorted(self._folder.iterdir())
            if each.name != self.own and _NAME.fullmatch(each.name) and self._is_free(each)
        ]

    def forget(self, process: str) -> None:
        """Remove its file."""
        (self._folder / process).unlink(missing_ok=True)

    def _is_free(self, path: Path) -> bool:
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            # It is asked each second, and the answer stays the same.
            if path.name not in self._unreadable:
                self._unreadable.add(path.name)
                _logger.warning("it cannot be seen whether the process of %r lives: %s", path.name, error.strerror)
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True
