"""Every message and response of a soak, by the line, in two files of a bounded size: the younger, and the one before it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from domain.models.run import JsonValue

__all__ = ["History"]

_MOST_WAITING = 100_000


class History:
    """Keeps at least the last half of `most_bytes`, never more than all of it. What does not fit on the disk is left out and counted."""

    def __init__(self, path: Path, *, most_bytes: int) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._waiting: list[Mapping[str, JsonValue]] = []
        self.left_out = 0

    def keep(self, entry: Mapping[str, JsonValue]) -> None:
        """Take note; nothing is written yet."""
        if len(self._waiting) < _MOST_WAITING:
            self._waiting.append(entry)
        else:
            self.left_out += 1

    def flush(self) -> None:
        """Write what was noted."""
        if not self._waiting:
            return
        entries, self._waiting = self._waiting, []
        text = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        try:
            if self._size() + len(text) > self._most_bytes // 2:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if len(text) <= self._most_bytes // 2:
                    os.write(file, text)
                else:
                    self.left_out += len(entries)
            finally:
                os.close(file)
        except OSError:
            self.left_out += len(entries)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0
