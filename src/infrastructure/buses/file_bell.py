"""How one process tells another that something lies in the folder of a file bus: a named pipe for each open bus object."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterable

from infrastructure.buses.file_folder import BusFolder

__all__ = ["ALL", "Bell", "ring"]

# Rings that name no inbox: a reply has come, or look at everything.
ALL = 0xFFFFFFFF
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
# A write of so few bytes into a pipe is never torn.
_SIZE = 4


class Bell:
    """The pipe of this object. It has none where the file system knows no pipes, and then its owner has to look for itself."""

    def __init__(self, folder: BusFolder, place: int) -> None:
        """Make it, in place of one left behind. Raises `OSError`."""
        self._folder = folder
        self._name = _name(place)
        folder.clear("objects", self._name)
        # Ready to be read, or -1.
        self.file = -1
        with contextlib.suppress(OSError):
            os.mkfifo(self._name, 0o600, dir_fd=folder.fd("objects"))
            # For writing too, so that it never comes to its end.
            self.file = os.open(self._name, os.O_RDWR | _FLAGS, dir_fd=folder.fd("objects"))

    def heard(self) -> Iterable[int]:
        """The inboxes that were rung for, each once."""
        found: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while text := os.read(self.file, 65_536):
                found.update(memoryview(text[: len(text) // _SIZE * _SIZE]).cast("I"))
        return found

    def close(self) -> None:
        """Remove it."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            with contextlib.suppress(OSError):
                self._folder.clear("objects", self._name)


def ring(folder: BusFolder, place: int, slot: int) -> bool:
    """Whether the object in that place was told; not when its pipe is full, or it has none and counts the rings that it missed."""
    try:
        file = os.open(_name(place), os.O_WRONLY | _FLAGS, dir_fd=folder.fd("objects"))
    except OSError:
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(file).st_mode):
            return False
        os.write(file, slot.to_bytes(_SIZE, sys.byteorder))
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def _name(place: int) -> str:
    return f"{place:x}.bell"
