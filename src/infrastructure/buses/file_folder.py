"""The folder in which a file bus lives: opened without following a link, one step at a time, its counts mapped into memory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from domain.errors.bus import BusError, BusUnavailableError, UnreadableMessageError

__all__ = ["TRANSPORT", "BusFolder", "NotReadableError", "as_found", "away", "damaged", "is_of_damage", "unavailable"]

TRANSPORT = "file"
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDERS = ("messages", "held", "expiring", "drafts", "letters", "replies", "requests", "objects", "ids")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What stands in the place of a message and is none: a link, a folder, a device, a file that may not be read.
_NO_MESSAGE = frozenset({errno.ELOOP, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENOTDIR})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_CHUNK = 64 * 1024
# What numbers and texts lead to that no bus wrote, in any step, and where tables are read without an argument of any caller.
_OF_DAMAGE = (ArithmeticError, LookupError, ValueError, struct.error)
_OF_READING = (*_OF_DAMAGE, AttributeError, MemoryError, RecursionError, TypeError)


class NotReadableError(UnreadableMessageError):
    """Something stands where a message should, and cannot be read as one."""


class BusFolder:
    """The files of one bus, readable by this user alone. Every path is looked up below folders that were opened without following a link.

    What a process does between `try_lock` and `unlock` no other sees half done; one that dies in between leaves `dirty` behind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folders: dict[str, int] = {}
        self._files: list[int] = []
        # With their sizes in bytes.
        self._maps: list[tuple[mmap.mmap, int, memoryview]] = []
        self._root = -1
        self._lock = -1
        self._moved = 0

    def open(self) -> None:
        """Make what is missing. Raises `BusUnavailableError` and `OSError`."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise self._refused("it is a link or no folder", "Give the folder itself.") from error
            raise
        owner = os.fstat(self._root).st_uid
        if owner not in (os.geteuid(), 0):
            raise self._refused(f"it belongs to user {owner}", "Give a folder of your own.")
        for name in _FOLDERS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=self._root)
            try:
                self._folders[name] = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=self._root)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise self._refused(f"{name!r} in it is a link or no folder", "Remove that.") from error
                raise
        self._lock = self._open_own("lock")

    def close(self) -> None:
        """Let go of everything, the lock included. Files stay."""
        for _, _, view in self._maps:
            view.release()
        for file in (*self._files, *self._folders.values(), self._lock, self._root):
            if file >= 0:
                os.close(file)
        self._maps, self._files, self._folders = [], [], {}
        self._lock = self._root = -1

    def try_lock(self) -> bool:
        """Whether nobody else is at it now. Raises `BusUnavailableError` where the folder was removed."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(self._lock).st_nlink == 0:
            self.unlock()
            raise self._refused("it was removed", "Close this bus and open it anew.")
        return True

    def unlock(self) -> None:
        """The next one's turn."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def is_whole(self) -> bool:
        """Whether what is mapped is as long as it was: to touch what was cut off would kill the process."""
        for mapped, size, _ in self._maps:  # noqa: SIM110 - before each step, so without a generator
            if mapped.size() != size:
                return False
        return True

    def words(self, name: str, count: int, *, is_known: bool) -> memoryview:
        """A file of `count` unsigned words of 64 bits, shared with all who map it; zeros unless it `is_known` to be there.

        Its space is set aside at once: a write into a hole of a full file system would kill the process. Raises `BusUnavailableError`.
        """
        file = self._open_own(name)
        try:
            size = os.fstat(file).st_size
            if size != 8 * count and (size or is_known):
                raise damaged(self.path, f"{name!r} in it has {size} bytes, not {8 * count}")
            os.posix_fallocate(file, 0, 8 * count)
            mapped = mmap.mmap(file, 8 * count)
        finally:
            os.close(file)
        view = memoryview(mapped).cast("Q")
        self._maps.append((mapped, 8 * count, view))
        return view

    def record_file(self, name: str, *, reserve: int = 0) -> int:
        """A file to read and write at positions, with `reserve` bytes set aside; closed together with the folder."""
        file = self._open_own(name)
        self._files.append(file)
        if os.fstat(file).st_size < reserve:
            os.posix_fallocate(file, 0, reserve)
        return file

    def forget_file(self, file: int) -> None:
        """Close one of `record_file`."""
        self._files.remove(file)
        os.close(file)

    def remove_own(self, name: str) -> None:
        """Remove a file of the folder itself."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._root)

    def fd(self, folder: str) -> int:
        """The open folder of that name."""
        return self._folders[folder]

    def create(self, folder: str, name: str, content: bytes) -> None:
        """A new file with that content, or none. Raises `OSError`."""
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self._folders[folder])
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(file, view) :]
        except OSError:
            os.unlink(name, dir_fd=self._folders[folder])
            raise
        finally:
            os.close(file)

    def read(self, folder: str, name: str, whole: Callable[[bytes], int]) -> bytes:
        """A file, of which `whole` says by its first 64 KiB how long it is, or 0 for one that is not wanted.

        Raises `FileNotFoundError`, and `NotReadableError` for what is no file that may be read or is not that long.
        """
        try:
            file = os.open(name, os.O_RDONLY | _OPEN, dir_fd=self._folders[folder])
            try:
                content = os.read(file, _CHUNK)
                if len(content) < _CHUNK:
                    return content
                size = whole(content)
                if os.fstat(file).st_size != size:
                    raise NotReadableError(problem="is longer or shorter than it says")
                parts = [content]
                room = size - len(content)
                while room > 0 and (more := os.read(file, min(room, 1 << 20))):
                    parts.append(more)
                    room -= len(more)
                return b"".join(parts)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in _NO_MESSAGE:
                raise NotReadableError(problem=f"cannot be read ({error.strerror})") from error
            raise

    def move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Rename, replacing what is there. Raises `OSError`."""
        folders = self._folders
        try:
            os.rename(source[1], target[1], src_dir_fd=folders[source[0]], dst_dir_fd=folders[target[0]])
        except IsADirectoryError:
            self.clear(*target)
            os.rename(source[1], target[1], src_dir_fd=folders[source[0]], dst_dir_fd=folders[target[0]])

    def link(self, source: tuple[str, str], target: tuple[str, str], content: bytes) -> None:
        """The same file under one more name, or a second file where the file system has no links."""
        try:
            os.link(
                source[1],
                target[1],
                src_dir_fd=self._folders[source[0]],
                dst_dir_fd=self._folders[target[0]],
                follow_symlinks=False,
            )
        except FileExistsError:
            # Only somebody else's: no step of ours leaves one behind.
            self.clear(*target)
            self.create(target[0], target[1], content)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.create(target[0], target[1], content)

    def remove(self, folder: str, name: str) -> bool:
        """Whether it was there and is no more."""
        try:
            os.unlink(name, dir_fd=self._folders[folder])
        except FileNotFoundError:
            return False
        return True

    def clear(self, folder: str, name: str) -> None:
        """Free a name: a file or a link is removed, a folder moved aside."""
        try:
            self.remove(folder, name)
        except OSError as error:
            if error.errno not in _NO_MESSAGE:
                raise
            self._moved += 1
            self.move((folder, name), ("drafts", f"foreign-{os.getpid():x}-{self._moved:x}"))

    def names(self, folder: str) -> list[str]:
        """What is in it, in no order."""
        return os.listdir(self._folders[folder])  # noqa: PTH208 - of an open folder

    def own_names(self) -> list[str]:
        """What is in the folder itself but its own folders, in no order."""
        return [name for name in os.listdir(self._root) if name not in _FOLDERS]  # noqa: PTH208 - as above

    def _open_own(self, name: str) -> int:
        try:
            file = os.open(name, os.O_RDWR | os.O_CREAT | _OPEN, 0o600, dir_fd=self._root)
        except OSError as error:
            if error.errno in _NO_MESSAGE:
                raise self._refused(f"{name!r} in it is no file that may be written", "Remove that.") from error
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise self._refused(f"{name!r} in it is no plain file", "Remove that.")
        return file

    def _refused(self, problem: str, remedy: str) -> BusUnavailableError:
        return BusUnavailableError(
            transport=TRANSPORT, problem=f"its folder {str(self.path)!r}: {problem}", remedy=remedy
        )


def unavailable(path: Path, error: OSError) -> BusUnavailableError:
    """What went wrong at the folder, and what to do about it."""
    if error.errno in _FULL:
        problem, remedy = "is full", "Free space there, receive what waits, or give a folder on a larger file system."
    elif isinstance(error, PermissionError):
        problem, remedy = "may not be used", "Give this user the rights to it, or give another folder."
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        problem, remedy = "cannot be opened", "Raise the limit of open files (ulimit -n)."
    else:
        problem, remedy = f"failed ({error.strerror})", "See whether its file system is still there."
    return BusUnavailableError(transport=TRANSPORT, problem=f"its folder {str(path)!r} {problem}", remedy=remedy)


def damaged(path: Path, problem: str) -> BusUnavailableError:
    """What is wrong with what lies in the folder, and what to do about it."""
    return BusUnavailableError(
        transport=TRANSPORT,
        problem=f"its folder {str(path)!r} is damaged: {problem}",
        remedy="Close every bus on it and remove it, or give another folder.",
    )


def is_of_damage(error: BaseException | None) -> bool:
    """Whether this can come of a table with something else in it; what a bus says with words does not, nor a text of the caller's."""
    return isinstance(error, _OF_DAMAGE) and not isinstance(error, BusError | OSError | UnicodeEncodeError)


class as_found:  # noqa: N801 - read as a word of a sentence; written out, since every step enters it
    """What a table raises that somebody else has written in as `BusUnavailableError`."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _OF_READING) and not isinstance(error, BusError | OSError):
            raise damaged(self._path, f"a table in it holds what no bus wrote ({type(error).__name__})") from error


@contextlib.contextmanager
def away(path: Path) -> Iterator[None]:
    """`OSError` as `BusUnavailableError`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, BusError):
            raise
        raise unavailable(path, error) from error
