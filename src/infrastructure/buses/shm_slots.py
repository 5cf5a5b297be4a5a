"""The open objects of a shared-memory bus: which of them live, and how one wakes another."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from array import array
from collections.abc import Callable
from pathlib import Path

from domain.errors.bus import BusUnavailableError
from infrastructure.buses.shm_layout import Head, Slot
from infrastructure.buses.shm_segment import Segment

__all__ = ["EVERYBODY", "Slots"]

# Stands for more than one slot in the words that say who waits.
EVERYBODY = Head.SLOT_COUNT + 1
_READ_BYTES = 65_536


class Slots:
    """Gives each object a slot with its process and a FIFO; a process that died, or that is a zombie, has no living slot.

    A wake is one word in the FIFO, written before the section ends: a SIGKILL can make a wake needless, never lose one. All calls but
    `read` are made inside a section of the segment.
    """

    def __init__(self, segment: Segment, woken: Callable[[int], None]) -> None:
        """`woken` is called with what this object itself wakes itself for."""
        self._segment = segment
        self._woken = woken
        self._writers: dict[tuple[int, int], int] = {}
        self.index = 0
        self.serial = 0
        self.file = -1
        self._kept_open = -1

    def take(self) -> list[int]:
        """A slot of one's own. Returns the places of slots whose process is dead; `release` them."""
        segment = self._segment
        words = segment.words
        dead, free = [], 0
        for index in range(1, Head.SLOT_COUNT):
            serial = words[_place(index)]
            if not serial:
                free = free or index
            elif not self.lives(index, serial):
                dead.append(index)
        if not free:
            free = dead[0] if dead else 0
        if not free:
            raise BusUnavailableError(
                transport="shm", problem=f"it has {Head.SLOT_COUNT - 1} objects", remedy="Close some of them."
            )
        if free in dead:
            dead.remove(free)
            self.release(free)
        place = _place(free)
        self.index, self.serial = free, segment.serial()
        nonce = secrets.randbits(63)
        self._open_fifo(self._fifo(free, nonce))
        for offset, value in (
            (Slot.PID, os.getpid()),
            (Slot.STARTED, _started(os.getpid())),
            (Slot.NONCE, nonce),
            (Slot.MISSED, 0),
            (Slot.SERIAL, self.serial),
        ):
            segment.set(place + offset, value)
        return dead

    def lives(self, index: int, serial: int) -> bool:
        """Whether the object with that serial still has the slot, and its process lives."""
        words = self._segment.words
        place = _place(index)
        if words[place + Slot.SERIAL] != serial:
            return False
        pid = words[place + Slot.PID]
        return _started(pid) == words[place + Slot.STARTED]

    def release(self, index: int) -> None:
        """The slot is free, its FIFO gone; its replies have to be taken out first."""
        words = self._segment.words
        place = _place(index)
        self._fifo(index, words[place + Slot.NONCE]).unlink(missing_ok=True)
        self._segment.set(place + Slot.SERIAL, 0)

    def others(self) -> bool:
        """Whether any other object lives."""
        words = self._segment.words
        return any(
            index != self.index and (serial := words[_place(index)]) and self.lives(index, serial)
            for index in range(1, Head.SLOT_COUNT)
        )

    def wait(self, word: int) -> None:
        """Note in a word of an inbox that this object waits."""
        waiting = self._segment.words[word]
        if waiting != self.index:
            self._segment.set(word, EVERYBODY if waiting else self.index)

    def wake_waiting(self, word: int, code: int) -> None:
        """Wake whom that word names, with what it is about; it names nobody afterwards."""
        waiting = self._segment.words[word]
        if not waiting:
            return
        self._segment.set(word, 0)
        if waiting != EVERYBODY:
            self.wake(waiting, code)
            return
        for index in range(1, Head.SLOT_COUNT):
            if self._segment.words[_place(index)]:
                self.wake(index, code)

    def wake(self, index: int, code: int) -> None:
        """Wake one object."""
        if index == self.index:
            self._woken(code)
            return
        words = self._segment.words
        place = _place(index)
        key = (index, words[place])
        writer = self._writers.get(key)
        try:
            if writer is None:
                path = self._fifo(index, words[place + Slot.NONCE])
                writer = self._writers[key] = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                self._forget_writers(index, key)
            os.write(writer, code.to_bytes(8, "little"))
        except BlockingIOError:
            # It has thousands of wakes to read: instead of one more it looks at everything.
            words[place + Slot.MISSED] = 1
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT, errno.EPIPE):
                raise
            # Its process is dead, and nobody waits there any more.

    def read(self) -> tuple[set[int], bool]:
        """What the object was woken for, and whether it has to look at everything."""
        codes = array("Q")
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.file, _READ_BYTES):
                codes.frombytes(data)
        place = _place(self.index) + Slot.MISSED
        missed = bool(self._segment.words[place])
        if missed:
            self._segment.words[place] = 0
        return set(codes), missed

    def close(self) -> None:
        """Close the files."""
        for file in (self.file, self._kept_open, *self._writers.values()):
            if file >= 0:
                os.close(file)
        self._writers.clear()
        self.file = self._kept_open = -1

    def _forget_writers(self, index: int, but: tuple[int, int]) -> None:
        for key in [key for key in self._writers if key[0] == index and key != but]:
            os.close(self._writers.pop(key))

    def _open_fifo(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self.file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        # With a writer of its own the reader never sees an end.
        self._kept_open = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _fifo(self, index: int, nonce: int) -> Path:
        return self._segment.folder / f"wake-{index}-{nonce:016x}"


def _place(index: int) -> int:
    return Head.SLOTS + index * Slot.WORDS


def _started(pid: int) -> int:
    """When a process started, in ticks since boot; 0 for one that is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
