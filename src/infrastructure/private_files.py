"""Files that only this user may read, in a folder where anything may lie: nothing is followed, and nothing is read without end."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["DIRECTORY", "FOLDER_MODE", "open_entry", "opened_folder", "read_file", "replace_file"]

FOLDER_MODE = 0o700
_FILE_MODE = 0o600
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_TEMPORARY = ".new-"


@contextmanager
def opened_folder(path: Path | str, *, within: int | None = None) -> Iterator[int]:
    """A descriptor of that folder; with `within`, a folder, only one that lies in it and is no link. Raises `OSError`."""
    flags = DIRECTORY if within is not None else DIRECTORY & ~os.O_NOFOLLOW
    descriptor = os.open(path, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_entry(name: str, flags: int, *, within: int) -> int:
    """A descriptor of the file of that name in the folder `within`, made for this user alone. Raises `OSError` for anything else."""
    # A pipe that somebody planted would be waited for without O_NONBLOCK.
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, _FILE_MODE, dir_fd=within)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{name!r} is no file")
    return descriptor


def read_file(name: str, *, within: int, limit: int) -> bytes | None:
    """All of that file, or None where there is none, where it is no file, or where it holds more than `limit` bytes."""
    try:
        descriptor = open_entry(name, os.O_RDONLY, within=within)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = file.read(limit + 1)
    return found if len(found) <= limit else None


def replace_file(name: str, content: bytes, *, within: int, synced: bool = False) -> None:
    """Put `content` in the place of that file, whole or not at all; `synced`, it outlives a loss of power. Raises `OSError`."""
    beside = f"{_TEMPORARY}{secrets.token_hex(6)}"
    descriptor = open_entry(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, within=within)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            if synced:
                os.fsync(file.fileno())
        os.rename(beside, name, src_dir_fd=within, dst_dir_fd=within)
        if synced:
            os.fsync(within)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside, dir_fd=within)
        raise
