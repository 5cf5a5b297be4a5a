"""Compares the archive with its record before anybody asks for it, so that the first who looks at a page need not wait for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from application.ports.deliberation_repository import DeliberationReader
from domain.errors.deliberation import RecordMismatchError
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["ArchiveComparison"]

_logger = logging.getLogger(__name__)

# So few that whoever asks meanwhile does not notice, and so seldom that a large archive takes a sixth of one processor.
_TOGETHER = 5
_PAUSE_S = 0.25
_BEGINS_AFTER_S = 10.0


class ArchiveComparison:
    """Reads the newest deliberations once, as a list would, while nothing is at work; a reader compares each that it reads."""

    def __init__(self, reader: DeliberationReader, *, is_busy: Callable[[], bool], most: int = 10_000) -> None:
        """`is_busy` says whether it has to wait; at most `most` are read."""
        self._reader = reader
        self._is_busy = is_busy
        self._most = most

    async def run(self) -> None:
        """Until all are compared, or one of them is not what was recorded: that is said, and older ones are compared when asked for."""
        await asyncio.sleep(_BEGINS_AFTER_S)
        cursor: str | None = None
        read = 0
        while read < self._most:
            await asyncio.sleep(_PAUSE_S)
            if self._is_busy():
                continue
            try:
                page = await self._reader.page(status=None, key_name=None, limit=_TOGETHER, cursor=cursor)
            except DependencyUnavailableError:
                # Whoever needs the store says so; this can wait.
                await asyncio.sleep(_BEGINS_AFTER_S)
                continue
            except RecordMismatchError as error:
                _logger.error("the archive is not what was recorded: %s", error)  # noqa: TRY400 - the message says all
                return
            read += len(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return
