"""Keeps what a process complains of: the first part and the last, and how much was left out between them, however much it says."""

from __future__ import annotations

import logging
import os
import threading

__all__ = ["FIRST_BYTES", "LAST_BYTES", "BoundedLog"]

_logger = logging.getLogger(__name__)

FIRST_BYTES = 256 * 1024
LAST_BYTES = 256 * 1024
_READ_BYTES = 64 * 1024


class BoundedLog:
    """A file that takes what comes out of a pipe, in a thread of its own, and never has more than a few bytes over `first` + 2 `last`.

    What is in it can be read at any time, up to the last `last` bytes that came: these are written with the end, or once twice as many
    have gathered. A disk that is full costs what does not fit, and whoever writes into the pipe is never held up by it.
    """

    def __init__(self, *, source: int, target: int, first: int = FIRST_BYTES, last: int = LAST_BYTES) -> None:
        """Read the pipe `source` to its end into the empty file `target`; both are closed by this."""
        self._source = source
        self._target = target
        self._first = first
        self._last = last
        self._kept = 0
        self._tail = bytearray()
        self._left_out = 0
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="run-log", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until everything is in the file; False where somebody still has the other end after so many seconds."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while data := os.read(self._source, _READ_BYTES):
                self._take(data)
            self._settle()
        finally:
            os.close(self._source)
            os.close(self._target)

    def _take(self, data: bytes) -> None:
        room = self._first - self._kept
        if room > 0:
            self._write(data[:room], at=self._kept)
            self._kept += min(room, len(data))
            data = data[room:]
        self._tail += data
        if len(self._tail) >= 2 * self._last:
            self._settle()

    def _settle(self) -> None:
        """Put the last part behind the first."""
        if not self._tail:
            return
        surplus = len(self._tail) - self._last
        if surplus > 0:
            self._left_out += surplus
            del self._tail[:surplus]
        told = b""
        if self._left_out:
            told = b"\n[... %s bytes are left out here ...]\n" % f"{self._left_out:,}".encode()
        self._write(told + self._tail, at=self._kept, cut=True)

    def _write(self, data: bytes | bytearray, *, at: int, cut: bool = False) -> None:
        try:
            rest = memoryview(data)
            place = at
            while rest:
                written = os.pwrite(self._target, rest, place)
                rest, place = rest[written:], place + written
            if cut:
                os.ftruncate(self._target, place)
        except OSError as error:
            if not self._broken:
                self._broken = True
                _logger.warning("what a run complains of is not kept whole: %s", error.strerror)
