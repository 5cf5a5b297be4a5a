"""The memory that the objects of one shared-memory bus have in common: a file in a folder of its own, its lock, journal and allocator."""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from domain.errors.bus import BusUnavailableError
from infrastructure.buses.shm_layout import Head
from infrastructure.buses.shm_mutex import RobustMutex, require_robust_mutexes

__all__ = ["Segment"]

_LIVE, _REMOVED = 1, 2
_STEP = 1 << 20
_SMALLEST = 3
# Serials begin where no pointer and no count reaches, so that a freed place is never taken for a living one.
_FIRST_SERIAL = 1 << 40


class Segment:
    """Shared words that change all or not at all: `with segment:` locks them, and what a dead holder left half done is undone.

    Every change of a word that others can reach goes through `set`, which first writes the old value into a journal; leaving the
    section empties the journal, an error or the next holder after a SIGKILL plays it back. Memory is reserved before it is touched,
    so that a full tmpfs is an error and no SIGBUS.
    """

    def __init__(self, folder: Path, *, size: int) -> None:
        """Open the segment of `folder`, or create it with at most `size` bytes. Raises `BusUnavailableError`."""
        require_robust_mutexes()
        self.folder = folder
        self.when_full: Callable[[], bool] = lambda: False
        self._file = self._open(size)
        self.size = os.fstat(self._file).st_size
        self.memory = mmap.mmap(self._file, self.size)
        self.words = memoryview(self.memory).cast("Q")
        self._mutex = RobustMutex(self.memory, Head.MUTEX * 8)
        if not self.words[Head.MAGIC]:
            self._create()
        fcntl.flock(self._file, fcntl.LOCK_UN)
        try:
            self._check()
        except BusUnavailableError:
            self._unmap()
            raise

    def __enter__(self) -> Segment:
        self._mutex.acquire()
        if self.words[Head.JOURNALLED]:
            self.undo()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.undo()
        self.words[Head.JOURNALLED] = 0
        self._mutex.release()

    def set(self, place: int, value: int) -> None:
        """Change one word, for good once the section ends or `commit` is called."""
        words = self.words
        entries = words[Head.JOURNALLED]
        if entries >= Head.JOURNAL_ENTRIES:
            raise BusUnavailableError(
                transport="shm", problem="one step changes too much at once", remedy="Send smaller batches."
            )
        entry = Head.JOURNAL + entries + entries
        words[entry] = place
        words[entry + 1] = words[place]
        words[Head.JOURNALLED] = entries + 1
        words[place] = value

    def add(self, place: int, amount: int = 1) -> None:
        """Change a count."""
        self.set(place, self.words[place] + amount)

    def ease(self) -> None:
        """Commit when the journal is half full: called between the parts of a long step, each of which may stand alone."""
        if self.words[Head.JOURNALLED] > Head.JOURNAL_ENTRIES // 2:
            self.words[Head.JOURNALLED] = 0

    def commit(self) -> None:
        """Make what was done so far final, without leaving the section."""
        self.words[Head.JOURNALLED] = 0

    def undo(self) -> None:
        """Take back what was not committed."""
        words = self.words
        for entry in range(words[Head.JOURNALLED] - 1, -1, -1):
            words[words[Head.JOURNAL + 2 * entry]] = words[Head.JOURNAL + 2 * entry + 1]
        words[Head.JOURNALLED] = 0

    def serial(self) -> int:
        """A number never given before; it may be lost."""
        number = self.words[Head.SERIAL] + 1
        self.words[Head.SERIAL] = number
        return number

    def allocate(self, count: int) -> int:
        """At least `count` words that nobody else has; the first is 1. Raises `BusUnavailableError` when there are none."""
        words = self.words
        power = max(_SMALLEST, (count - 1).bit_length())
        place = words[Head.FREE + power]
        if place:
            self.set(Head.FREE + power, words[place])
            self.set(place, 1)
            return place
        top = words[Head.TOP]
        end = (top + (1 << power)) * 8
        if end <= self.size:
            if end > words[Head.RESERVED]:
                self._reserve(end)
            self.set(Head.TOP, top + (1 << power))
            words[top] = 1
            return top
        for larger in range(power + 1, 32):
            if words[Head.FREE + larger]:
                return self._split(larger, power)
        if self.when_full():
            return self.allocate(count)
        raise BusUnavailableError(
            transport="shm",
            problem=f"its segment of {self.size} bytes is full",
            remedy="Let its agents receive, or open it first with a larger segment_bytes.",
        )

    def free(self, place: int, count: int) -> None:
        """Give words back that `allocate(count)` gave."""
        power = max(_SMALLEST, (count - 1).bit_length())
        self.set(place, self.words[Head.FREE + power])
        self.set(Head.FREE + power, place)

    def close(self, *, leave: Callable[[], bool] | None = None) -> None:
        """Unmap it; where `leave`, called with nobody else inside, says that nobody is left, remove the files first."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            with self:
                last = leave is not None and leave()
                if last:
                    self.words[Head.STATE] = _REMOVED
            if last:
                shutil.rmtree(self.folder)
        finally:
            self._unmap()

    def _unmap(self) -> None:
        self._mutex.detach()
        self.words.release()
        self.memory.close()
        os.close(self._file)

    def _split(self, larger: int, power: int) -> int:
        place = self.words[Head.FREE + larger]
        self.set(Head.FREE + larger, self.words[place])
        while larger > power:
            larger -= 1
            half = place + (1 << larger)
            self.set(half, self.words[Head.FREE + larger])
            self.set(Head.FREE + larger, half)
        self.set(place, 1)
        return place

    def _open(self, size: int) -> int:
        while True:
            self._make_folder()
            try:
                file = os.open(
                    self.folder / "segment",
                    os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK,
                    0o600,
                )
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self._unusable(error) from error
            fcntl.flock(file, fcntl.LOCK_EX)
            status = os.fstat(file)
            if not status.st_nlink:
                os.close(file)
                continue
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                os.close(file)
                raise self._foreign()
            try:
                if status.st_size < Head.ARENA * 8 or os.pread(file, 8, 0) == bytes(8):
                    os.ftruncate(file, 0)
                    os.posix_fallocate(file, 0, Head.ARENA * 8)
                    os.ftruncate(file, max(size, (Head.ARENA + 1024) * 8))
            except OSError as error:
                os.ftruncate(file, 0)
                os.close(file)
                raise self._unusable(error) from error
            return file

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(mode=0o700)
        except FileExistsError:
            try:
                status = self.folder.lstat()
            except FileNotFoundError:
                return
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise self._foreign() from None
        except OSError as error:
            raise self._unusable(error) from error

    def _create(self) -> None:
        words = self.words
        words[Head.STATE] = _LIVE
        words[Head.RESERVED] = Head.ARENA * 8
        words[Head.TOP] = Head.ARENA
        words[Head.NAMESPACE] = _namespace()
        words[Head.SERIAL] = _FIRST_SERIAL
        words[Head.SALT] = secrets.randbits(64)
        self._mutex.create()
        words[Head.MAGIC] = Head.VERSION

    def _check(self) -> None:
        if self.words[Head.MAGIC] != Head.VERSION:
            raise self._foreign()
        if self.words[Head.NAMESPACE] != _namespace():
            raise BusUnavailableError(
                transport="shm",
                problem=f"{str(self.folder)!r} belongs to another pid namespace, whose processes cannot be seen from here",
                remedy="Share the pid namespace between the containers, or use the redis bus.",
            )

    def _reserve(self, end: int) -> None:
        start = self.words[Head.RESERVED]
        end = min(self.size, -(-end // _STEP) * _STEP)
        try:
            os.posix_fallocate(self._file, start, end - start)
        except OSError as error:
            raise self._unusable(error) from error
        self.words[Head.RESERVED] = end

    def _unusable(self, error: OSError) -> BusUnavailableError:
        return BusUnavailableError(
            transport="shm",
            problem=f"{str(self.folder)!r}: {error.strerror}",
            remedy="Make room in that file system or give the bus another folder.",
        )

    def _foreign(self) -> BusUnavailableError:
        return BusUnavailableError(
            transport="shm",
            problem=f"{str(self.folder)!r} was not made by this user and this version",
            remedy="Remove it when no process uses it, or take another name.",
        )


def _namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino
