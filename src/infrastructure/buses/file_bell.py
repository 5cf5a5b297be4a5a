"""How one process tells another that something lies in the folder of a file bus: a named pipe for each open bus object."""

from __future__ import annotations

import contextlib
import os
import stat
from array import array
from collections.abc import Iterable, Sequence

from infrastructure.buses.file_folder import BusFolder

__all__ = ["ALL", "Bell", "Ropes"]

# Rings that name no inbox: a reply has come, or look at everything.
ALL = 0xFFFFFFFF
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
# A write of so few bytes into a pipe is never torn.
_SIZE = 4
_AT_ONCE = 128
_PIPE = 65_536
# So many pipes of others are kept open.
_MAX_ROPES = 64


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
            while True:
                text = os.read(self.file, _PIPE)
                found.update(memoryview(text[: len(text) // _SIZE * _SIZE]).cast("I"))
                # Less than was asked for is all of it; what comes later makes the pipe ready again.
                if len(text) < _PIPE:
                    break
        return found

    def close(self) -> None:
        """Remove it."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
            with contextlib.suppress(OSError):
                self._folder.clear("objects", self._name)


class Ropes:
    """What this object rings the bells of others with: their pipes, kept open from one ring to the next.

    A pipe is known by the number that its object has for life, so none is taken for that of a later holder of the place.
    """

    def __init__(self, folder: BusFolder) -> None:
        self._folder = folder
        self._files: dict[tuple[int, int], int] = {}

    def ring(self, place: int, number: int, slots: Sequence[int]) -> bool:
        """Whether that object was told; not when its pipe is full, or it has none and counts the rings that it missed."""
        file = self._files.get((place, number))
        if file is None:
            file = self._open(place, number)
            if file is None:
                return False
        try:
            for start in range(0, len(slots), _AT_ONCE):
                os.write(file, array("I", slots[start : start + _AT_ONCE]).tobytes())
        except BlockingIOError:
            return False
        except OSError:
            os.close(self._files.pop((place, number)))
            return False
        return True

    def close(self) -> None:
        """Let go of all."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _open(self, place: int, number: int) -> int | None:
        try:
            file = os.open(_name(place), os.O_WRONLY | _FLAGS, dir_fd=self._folder.fd("objects"))
        except OSError:
            return None
        if not stat.S_ISFIFO(os.fstat(file).st_mode):
            os.close(file)
            return None
        if len(self._files) >= _MAX_ROPES:
            os.close(self._files.pop(next(iter(self._files))))
        self._files[place, number] = file
        return file


def _name(place: int) -> str:
    return f"{place:x}.bell"
