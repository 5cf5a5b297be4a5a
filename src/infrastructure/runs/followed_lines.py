"""Reads a growing file line by line, from where the last look ended, a bounded part at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator

from infrastructure.private_files import open_entry

__all__ = ["MAX_LINE_BYTES", "FollowedLines"]

MAX_LINE_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024


class FollowedLines:
    """Whole lines of the file of that name in a folder, each once, in order; a line without its end is not there yet.

    A file that is replaced, or shorter than it was, is read from its beginning, and `generation` is another one then. Links are not
    followed. Lines longer than `MAX_LINE_BYTES` are passed over.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.generation = 1
        self.is_whole = False
        self._stamp: tuple[int, int] | None = None
        self._offset = 0
        self._passes_over = False

    def look(self, folder: int, *, limit: int) -> Iterator[bytes]:
        """The next lines of at most `limit` bytes; `is_whole` is then whether those were all there are. Raises `OSError`.

        `limit` has room for twice the longest line at least.
        """
        descriptor = open_entry(self.name, os.O_RDONLY, within=folder)
        try:
            found = os.fstat(descriptor)
            stamp = (found.st_dev, found.st_ino)
            if self._stamp is not None and (stamp != self._stamp or found.st_size < self._offset):
                self.generation += 1
                self._offset, self._passes_over = 0, False
            self._stamp = stamp
            self.is_whole = False
            yield from self._lines(descriptor, limit)
        finally:
            os.close(descriptor)

    def _lines(self, descriptor: int, limit: int) -> Iterator[bytes]:
        read = 0
        while read < limit:
            asked = min(_PIECE_BYTES, limit - read)
            piece = os.pread(descriptor, asked, self._offset)
            read += len(piece)
            end = piece.rfind(b"\n") + 1
            if not end:
                if len(piece) <= MAX_LINE_BYTES and not self._passes_over:
                    # Not written to its end, or nothing at all.
                    self.is_whole = len(piece) < asked
                    return
                # Nothing that long is a line of ours, but the end of it has to be found.
                self._offset += len(piece)
                self._passes_over = True
                continue
            self._offset += end
            lines = piece[:end].split(b"\n")[:-1]
            if self._passes_over:
                self._passes_over = False
                del lines[0]
            yield from (line for line in lines if len(line) <= MAX_LINE_BYTES)
