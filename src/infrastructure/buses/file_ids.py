"""The ids that an inbox of a file bus was sent, so that one that comes again is recognised whoever sends it."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from hashlib import blake2b

from infrastructure.buses.bus_limits import REMEMBERED_IDS
from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_words import Inbox

__all__ = ["KnownIds"]

_SIZE = 16
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class KnownIds:
    """At least the last 100,000 ids of one inbox and never more than twice as many: two files of digests, read on by each object.

    Every call is made under the folder's lock.
    """

    __slots__ = ("_epoch", "_new", "_old", "_read", "_slot")

    def __init__(self, slot: int) -> None:
        self._slot = slot
        self._epoch = -1
        self._read = 0
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def knows(self, folder: BusFolder, words: memoryview, message_id: str) -> bool:
        """Whether this id came before."""
        self._refresh(folder, words)
        digest = _digest(message_id)
        return digest in self._new or digest in self._old

    def write(self, folder: BusFolder, message_id: str) -> None:
        """Lay down an id that `knows` was just asked about; it counts from `commit` on. Raises `OSError`."""
        with _opened(folder, self._slot, self._epoch) as file:
            if os.pwrite(file, _digest(message_id), self._read * _SIZE) != _SIZE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def commit(self, folder: BusFolder, words: memoryview, message_id: str) -> None:
        """Its message was taken: remember it."""
        self._new.add(_digest(message_id))
        self._read += 1
        words[Inbox.IDS] = self._read
        if self._read >= REMEMBERED_IDS:
            folder.remove("ids", _name(self._slot, self._epoch + 1))
            words[Inbox.IDS_EPOCH] = self._epoch = self._epoch + 1
            words[Inbox.IDS] = self._read = 0
            self._old, self._new = self._new, set()

    def forget(self, folder: BusFolder, words: memoryview) -> None:
        """The inbox is closed, and whoever gets its place starts anew."""
        for epoch in (0, 1):
            folder.remove("ids", _name(self._slot, epoch))
        words[Inbox.IDS] = 0

    def _refresh(self, folder: BusFolder, words: memoryview) -> None:
        epoch, count = words[Inbox.IDS_EPOCH], words[Inbox.IDS]
        if epoch != self._epoch:
            self._old = _read(folder, self._slot, epoch - 1, 0, REMEMBERED_IDS) if epoch else set()
            self._new, self._epoch, self._read = set(), epoch, 0
        if count != self._read:
            self._new |= _read(folder, self._slot, epoch, self._read, count)
            self._read = count


def _digest(message_id: str) -> bytes:
    return blake2b(message_id.encode(), digest_size=_SIZE).digest()


def _name(slot: int, epoch: int) -> str:
    return f"{slot:x}-{epoch % 2}"


@contextlib.contextmanager
def _opened(folder: BusFolder, slot: int, epoch: int) -> Iterator[int]:
    file = os.open(_name(slot, epoch), _FLAGS, 0o600, dir_fd=folder.fd("ids"))
    try:
        yield file
    finally:
        os.close(file)


def _read(folder: BusFolder, slot: int, epoch: int, start: int, end: int) -> set[bytes]:
    with _opened(folder, slot, epoch) as file:
        found = os.pread(file, (end - start) * _SIZE, start * _SIZE)
    return {found[place : place + _SIZE] for place in range(0, len(found), _SIZE)}
