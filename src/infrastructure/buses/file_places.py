"""Which bus objects are open on a folder: each holds a lock that the kernel lets go with its process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path

from domain.errors.bus import BusUnavailableError, UnreadableMessageError
from infrastructure.buses.file_folder import TRANSPORT, BusFolder, damaged
from infrastructure.buses.file_words import MAX_OBJECTS, OBJECT_WORDS, State

__all__ = ["Places", "machine_boot"]

_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# More than can be on their way at a time.
_MOST_REPLIES = 1 << 24
_REPLIES_BEGIN, _REPLIES_END, _MISSED = 1, 2, 3


class Places:
    """The place of this object among at most 1,024, and a number that no other object of the folder ever had.

    Made and asked under the folder's lock.
    """

    def __init__(self, folder: BusFolder, state: memoryview) -> None:
        """Take a free place and clear what its last holder left. Raises `BusUnavailableError` and `OSError`."""
        self._folder = folder
        self._state = state
        for place in range(MAX_OBJECTS):
            file = os.open(f"{place:x}", _FLAGS | os.O_CREAT, 0o600, dir_fd=folder.fd("objects"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            break
        else:
            raise BusUnavailableError(
                transport=TRANSPORT, problem=f"{MAX_OBJECTS} objects are open on it", remedy="Close some of them."
            )
        self._file = file
        self.place = place
        self.number = state[State.NEXT_OBJECT]
        state[State.NEXT_OBJECT] += 1
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(_identity(os.getpid())).encode(), 0)
        self._words = State.OBJECTS + OBJECT_WORDS * place
        state[self._words] = self.number
        state[self._words + _REPLIES_BEGIN] = state[self._words + _REPLIES_END] = 0
        self.clear()

    def clear(self) -> None:
        """Remove the drafts, requests and replies of whoever holds this place or held it before."""
        folder = self._folder
        for kind in ("drafts", "replies"):
            for name in folder.names(kind):
                if name.startswith(f"{self.place:x}-"):
                    folder.clear(kind, name)
        own = f"{self.place:x}-".encode()
        for name in folder.names("requests"):
            with contextlib.suppress(FileNotFoundError, UnreadableMessageError):
                if folder.read("requests", name, len).startswith(own):
                    folder.clear("requests", name)

    def close(self) -> None:
        """Give the place up."""
        if self._folder.is_whole():
            self._state[self._words] = 0
        os.close(self._file)

    def number_at(self, place: int) -> int:
        """The number for life of the object that holds, or held last, that place; 0 when it was closed."""
        return self._state[State.OBJECTS + OBJECT_WORDS * place]

    def is_alive(self, place: int, number: int) -> bool:
        """Whether that object is open."""
        if (place, number) == (self.place, self.number):
            return True
        if number == 0 or self._state[State.OBJECTS + OBJECT_WORDS * place] != number:
            return False
        try:
            file = os.open(f"{place:x}", _FLAGS, dir_fd=self._folder.fd("objects"))
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            # A child that was forked keeps the lock of its dead parent.
            return not _is_of_the_dead(os.pread(file, 1_000, 0))
        finally:
            os.close(file)
        return False

    def next_reply(self, place: int) -> str:
        """The name that the next reply to that object's requests has."""
        return f"{place:x}-{self._state[State.OBJECTS + OBJECT_WORDS * place + _REPLIES_END]:x}"

    def add_reply(self, place: int) -> None:
        """It is there."""
        self._state[State.OBJECTS + OBJECT_WORDS * place + _REPLIES_END] += 1

    def new_replies(self) -> list[str]:
        """The names of those that came since; needs no lock. Raises `BusUnavailableError`."""
        first, last = self._state[self._words + _REPLIES_BEGIN], self._state[self._words + _REPLIES_END]
        if not 0 <= last - first <= _MOST_REPLIES:
            raise damaged(self._folder.path, "it counts replies that nobody sent")
        self._state[self._words + _REPLIES_BEGIN] = last
        return [f"{self.place:x}-{number:x}" for number in range(first, last)]

    def miss(self, place: int) -> None:
        """Count a ring that did not reach that object."""
        self._state[State.OBJECTS + OBJECT_WORDS * place + _MISSED] += 1

    def missed(self) -> int:
        """How many rings did not reach the objects of this place."""
        return self._state[self._words + _MISSED]


def machine_boot() -> int:
    """A number that changes when the machine restarts, where it tells one."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return int(text.strip().replace("-", "")[:15], 16)
    except (OSError, ValueError):
        return 1


def _identity(pid: int) -> dict[str, object]:
    """What tells a process from another that has its number later, or in another container."""
    try:
        space = Path("/proc/self/ns/pid").stat().st_ino
        started = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return {"pid": pid, "space": None, "started": None}
    return {"pid": pid, "space": space, "started": started}


def _is_of_the_dead(text: bytes) -> bool:
    """Whether the process that wrote this is certain to be dead."""
    try:
        written = json.loads(text)
        pid, space = written["pid"], written["space"]
    except (ValueError, KeyError, TypeError):
        return False
    if space is None or space != _identity(os.getpid())["space"]:
        return False
    return bool(_identity(pid)["started"] != written["started"])
