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


class FileHaltChannel:
    """`HaltChannel` over one file, which is there while the system is halted; its text is the reason, its time the `since`.

    A file of any content halts. A folder or a device in its place, a link that leads nowhere, a file that may not be read and a
    missing folder above it are a channel that is away. The folder above is never made: a disk that is not mounted is no halt cleared.
    """

    name = _NAME

    def __init__(self, path: Path) -> None:
        self._path = path

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
        return ChannelReading(halted=True, reason=reason or None, since=datetime.fromtimestamp(found.st_mtime, UTC))

    def set(self, reason: str, since: datetime) -> bool:
        """As in `HaltChannel`: whole or not at all, and on the disk before this returns."""
        with _translated("it cannot be written"):
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
                    if not self._create(reason.encode()):
                        return False
                sync_folder(self._path.parent)
            finally:
                draft.unlink(missing_ok=True)
        return True

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

    def _create(self, content: bytes) -> bool:
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        return True

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
    with os.fdopen(file, "wb") as opened:
        opened.write(content)
        opened.flush()
        if at is not None:
            os.utime(opened.fileno(), (at.timestamp(), at.timestamp()))
        os.fsync(opened.fileno())


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
