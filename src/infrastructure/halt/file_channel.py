"""The halt as a file: it halts by being there, and whoever can touch a file can halt the system."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading
from domain.models.text import clean

__all__ = ["FileHaltChannel", "replace_durably", "sync_folder"]

_NAME = "file"
_MAX_BYTES = 4 * MAX_REASON_CHARACTERS
# File systems without hard links say so by one of these.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})
# No block is left for content: by the disk, by the user's share of it, by the process's own limit.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileHaltChannel:
    """`HaltChannel` over one file, which is there while the system is halted; its text is the reason, its time the `since`.

    A file of any content halts. A folder or a device in its place, a link that leads nowhere, a file that may not be read and a
    missing folder above it are a channel that is away. The folder above is never made: a disk that is not mounted is no halt cleared.
    Where the disk is full the file is empty, and only whoever set it knows the reason.
    """

    name = _NAME

    def __init__(self, path: Path) -> None:
        self._path = path
        # Which empty file stands for which reason.
        self._unwritten: tuple[tuple[int, int, int], str] | None = None

    def read(self) -> ChannelReading:
        """As in `HaltChannel`. Reads at most 4,000 bytes; what is no UTF-8 is replaced."""
        with _translated("it cannot be read"):
            try:
                # Without blocking, or a pipe in its place would hold up the watcher.
                file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                self._require_absent()
                return ChannelReading(halted=False)
            try:
                found = os.fstat(file)
                _require_regular(found)
                text = os.read(file, _MAX_BYTES)
            finally:
                os.close(file)
        reason = clean(text.decode(errors="replace")).strip()[:MAX_REASON_CHARACTERS]
        unwritten = self._unwritten
        if not text and unwritten is not None and unwritten[0] == _identity(found):
            reason = unwritten[1]
        return ChannelReading(halted=True, reason=reason or None, since=datetime.fromtimestamp(found.st_mtime, UTC))

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`: with its reason whole or not at all, and on the disk before this returns."""
        with _translated("it cannot be written"):
            try:
                return self._link(reason, since)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
            return self._create(b"", reason, since)

    def clear(self) -> bool:
        """As in `HaltChannel`."""
        with _translated("it cannot be removed"):
            was_set = self.read().halted
            if was_set:
                self._path.unlink(missing_ok=True)
            sync_folder(self._path.parent)
        return was_set

    def close(self) -> None:
        """Nothing is held open."""

    def _link(self, reason: str, since: datetime) -> bool:
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            _write(draft, reason.encode(), since)
            try:
                os.link(draft, self._path)
            except FileExistsError:
                # One that cannot be read is no halt that stays as it is, and this says so.
                self.read()
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                return self._create(reason.encode(), reason, since)
        finally:
            draft.unlink(missing_ok=True)
        self._sync()
        return True

    def _create(self, content: bytes, reason: str, since: datetime) -> bool:
        """Make it in its place; empty, with the reason remembered here alone, where there is no room for `content`."""
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            self.read()
            return False
        try:
            try:
                _fill(file, content, since)
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                os.ftruncate(file, 0)
                os.utime(file, (since.timestamp(), since.timestamp()))
            found = os.fstat(file)
            self._unwritten = (_identity(found), reason) if found.st_size == 0 else None
        finally:
            os.close(file)
        self._sync()
        return True

    def _sync(self) -> None:
        """Make the file's name last. It halts already: a disk without room to note the name down is no reason to deny that."""
        try:
            sync_folder(self._path.parent)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise

    def _require_absent(self) -> None:
        """Raise where it only seems to be absent: its folder is away, or it is a link to something that is."""
        if self._path.is_symlink():
            raise HaltChannelUnreachableError(channel=_NAME, problem="it is a link that leads nowhere")
        if not stat.S_ISDIR(self._path.parent.stat().st_mode):
            raise HaltChannelUnreachableError(channel=_NAME, problem="its folder is no folder")


def replace_durably(path: Path, content: bytes) -> None:
    """Write `content` to `path`, readable by this user alone, whole or not at all; on the disk before this returns."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write(draft, content, None, mode=0o600)
        draft.replace(path)
        sync_folder(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in `folder` last."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write(path: Path, content: bytes, at: datetime | None, *, mode: int = 0o644) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        _fill(file, content, at)
    finally:
        os.close(file)


def _fill(file: int, content: bytes, at: datetime | None) -> None:
    while content:
        content = content[os.write(file, content) :]
    if at is not None:
        os.utime(file, (at.timestamp(), at.timestamp()))
    os.fsync(file)


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    """Which file it is: by its time too, because the number of one that is gone is given to the next."""
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _require_regular(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise HaltChannelUnreachableError(channel=_NAME, problem="a folder is in its place")
    if not stat.S_ISREG(found.st_mode):
        raise HaltChannelUnreachableError(channel=_NAME, problem="what is in its place is no file")


@contextlib.contextmanager
def _translated(problem: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HaltChannelUnreachableError(channel=_NAME, problem=f"{problem} ({error.strerror})") from error
