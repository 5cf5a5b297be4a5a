"""Questions to a script of the Redis bus, each with its answer; those that are asked while one trip is on its way go together."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence

from domain.errors.bus import BusError
from infrastructure.buses.redis_lane import Lane
from infrastructure.buses.redis_records import chunks

__all__ = ["Ended", "Questions"]

Ended = Callable[[bytes | BusError], None]
Words = tuple[bytes | str | int, ...]

_STEPS = 256
_SIZE = 4 * 1024 * 1024


class _Question:
    __slots__ = ("_ended", "size", "words")

    def __init__(self, words: Words, ended: Ended) -> None:
        self.words = words
        self._ended = ended
        self.size = 64 + sum(len(word) for word in words if isinstance(word, bytes))

    def sets_out(self) -> bool:
        return True

    def done(self, answer: bytes) -> None:
        self._ended(answer)

    def failed(self, error: BusError) -> None:
        self._ended(error)


class Questions:
    """Asks in order, and gives each answer or error to whoever asked."""

    def __init__(self, travel: Callable[[list[bytes | str | int]], Awaitable[bytes]]) -> None:
        """`travel` gets the words of all questions of a trip, and answers with a length and an answer for each."""
        self._lane: Lane[_Question] = Lane(self._trip, steps=_STEPS, size=_SIZE)
        self._travel = travel

    def add(self, words: Words, ended: Ended) -> None:
        """Ask, and call `ended` with what comes of it."""
        self._lane.add(_Question(words, ended))

    async def ask(self, *words: bytes | str | int) -> bytes:
        """The answer. Asked it is also when whoever waits is cancelled."""
        future: Future[bytes] = asyncio.get_running_loop().create_future()

        def ended(answer: bytes | BusError) -> None:
            if future.done():
                return
            if isinstance(answer, BusError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self.add(words, ended)
        return await future

    async def idle(self) -> None:
        """Until nothing is on its way."""
        await self._lane.idle()

    async def _trip(self, questions: Sequence[_Question]) -> list[bytes]:
        words = [word for question in questions for word in question.words]
        return list(chunks(await self._travel(words)))
