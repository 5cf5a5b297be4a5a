"""A count that goes up on one line of standard error while somebody watches."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from api.cli.terminal import progress_console

__all__ = ["Counter"]

_EVERY_S = 0.2
_CLEAR_LINE = "\r\x1b[K"


class Counter:
    """Shows how many of `what` are done, now and then, and is gone when its block ends. Silent where nobody watches."""

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        console = progress_console()
        self._file = None if console is None or console.is_dumb_terminal else console.file
        self._what = what
        self._clock = clock
        self._shown_at: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown_at is not None:
            self._write(_CLEAR_LINE)

    def show(self, count: int) -> None:
        """Take note that so many are done."""
        if self._file is None:
            return
        now = self._clock()
        if self._shown_at is not None and now - self._shown_at < _EVERY_S:
            return
        self._shown_at = now
        self._write(f"{_CLEAR_LINE}{count:,} {self._what}")

    def _write(self, text: str) -> None:
        assert self._file is not None  # noqa: S101 - both callers have looked
        self._file.write(text)
        self._file.flush()
