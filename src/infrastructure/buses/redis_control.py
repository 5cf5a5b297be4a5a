"""What a Redis bus asks its server for beside messages: names, groups, counts and dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from domain.errors.bus import BusError
from infrastructure.buses.redis_questions import Questions
from infrastructure.buses.redis_wire import RedisWire

__all__ = ["RedisControl"]

_log = logging.getLogger(__name__)


class RedisControl:
    """Runs the four scripts, each one at a time: `send` and `take` for whoever carries messages, `control` and `look` for all else."""

    def __init__(self, wire: RedisWire, wall_clock: Callable[[], float] | None) -> None:
        """Without a `wall_clock` (Unix seconds) the server's decides what is due."""
        self._wire = wire
        self._wall_clock = wall_clock
        self._questions = Questions(self._change)
        self._turn = asyncio.Lock()

    async def send(self, records: bytes) -> bytes:
        """What became of each record."""
        return await self._wire.run("send", (records,), self._now())

    async def take(self, steps: Sequence[bytes | str | int]) -> bytes:
        """An answer for each step."""
        return await self._wire.run("take", steps, self._now())

    async def ask(self, *words: str | int) -> bytes:
        """One operation and its arguments."""
        return await self._questions.ask(len(words), *words)

    async def look(self, *words: str | int) -> bytes:
        """One that changes nothing, and its arguments."""
        async with self._turn:
            return await self._wire.run("look", words, self._now())

    async def idle(self) -> None:
        """Until nothing is on its way."""
        await self._questions.idle()

    async def count(self, what: str, number: int) -> None:
        """Add to one of the counts; one that is not counted is told of in the log."""
        try:
            await self.ask("count", what, number)
        except BusError as error:
            _log.warning("%d of %s could not be counted: %s", number, what, error)

    async def sweep(self) -> None:
        """Bury what has expired and what nobody may have any more."""
        while await self.ask("sweep") == b"1":
            continue

    async def _change(self, words: list[bytes | str | int]) -> bytes:
        return await self._wire.run("control", words, self._now())

    def _now(self) -> str:
        return "" if self._wall_clock is None else str(int(self._wall_clock() * 1e3))
