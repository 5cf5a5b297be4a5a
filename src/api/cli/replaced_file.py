"""A file that is either the old one or the whole new one, whenever the machine stops."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from domain.errors.configuration import ConfigurationError

__all__ = ["replaced_file"]


@contextmanager
def replaced_file(path: Path, *, private: bool) -> Iterator[TextIO]:
    """A text file (UTF-8) to write into, which takes the place of `path` when the block ends well, and else leaves no trace.

    It lies beside `path` until then, and is on the disk before it is renamed. A link is followed. `private` lets nobody but
    this user read it. Raises `ConfigurationError` where no file can be made, and `OSError` naming `path` where it does not fit.
    """
    if str(path) == "-":
        raise _unusable(path, "stands for standard output elsewhere, and here a file is written")
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise _unusable(path, "is not a file")
    beside = target.with_name(f".conclave-{secrets.token_hex(6)}.part")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    except OSError as error:
        raise _unusable(path, f"cannot be written ({error.strerror})") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
        _folder_to_disk(target.parent)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
        if isinstance(error, OSError) and error.filename is None:
            # A write names no file, and whoever reads the message would look elsewhere.
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="FILE",
        problem=f"{str(path)!r} {problem}",
        remedy="Name a file in a folder that this user may write to.",
    )
