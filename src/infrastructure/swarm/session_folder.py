"""The folder of one session of a swarm: documents that are whole or absent, and texts that only grow."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from domain.errors.configuration import ConfigurationError
from domain.models.message import Payload

__all__ = ["SessionFolder"]


class SessionFolder:
    """A new folder; what is replaced in it is on the disk, its name included, before the call returns.

    What a name may hold is decided by the callers, none of whom takes it from a message.
    """

    def __init__(self, out: Path, session: str) -> None:
        self._place = out.absolute() / f"session_{session}"
        self._texts: dict[str, TextIO] = {}

    @property
    def place(self) -> Path:
        """Where it is, whether or not it was made yet."""
        return self._place

    def open(self) -> None:
        """Make it, with the folder for the documents. Raises `ConfigurationError`."""
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            self._place.mkdir()
            (self._place / "vault").mkdir()
        except FileExistsError as error:
            problem = f"{str(error.filename or self._place)!r} is there already"
            raise _unusable(problem) from error
        except OSError as error:
            raise _unusable(f"{str(self._place)!r} cannot be made ({error.strerror})") from error

    def append(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a text. Raises `OSError`."""
        text = self._texts.get(name)
        if text is None:
            text = self._texts[name] = (self._place / name).open("a", encoding="utf-8", errors="backslashreplace")
        text.write("".join(f"{line}\n" for line in lines))
        text.flush()

    def replace(self, name: str, document: Mapping[str, Payload]) -> int:
        """Put a document; its bytes. It takes its name only once it is on the disk. Raises `OSError`."""
        target = self._place / name
        content = json.dumps(document, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        beside = target.with_name(f".{target.name}-{secrets.token_hex(4)}.part")
        try:
            with beside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            # A write names no file, and whoever reads the message would look elsewhere.
            raise OSError(error.errno, error.strerror, str(target)) from error
        _to_disk(target.parent)
        return len(content)

    def close(self) -> None:
        """Close the texts."""
        for text in self._texts.values():
            text.close()
        self._texts.clear()


def _to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="--out", problem=problem, remedy="Name a folder that this user may write to, and a new --session."
    )
