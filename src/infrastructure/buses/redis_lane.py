"""Steps towards Redis in order: what is asked for while one trip is on its way makes the next trip together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from domain.errors.bus import BusError

__all__ = ["Lane", "Step"]


class Step(Protocol):
    """One thing to be done in a trip."""

    # Bytes on the way.
    size: int

    def sets_out(self) -> bool:
        """Called when a trip begins; False when it does not go along, and then nothing more is called."""
        ...

    def done(self, answer: bytes) -> None:
        """Called in the order of the trip."""
        ...

    def failed(self, error: BusError) -> None:
        """Called when the whole trip failed."""
        ...


S = TypeVar("S", bound=Step)


class Lane(Generic[S]):
    """Carries steps in the order in which they were added, one trip at a time, each of bounded number and size."""

    def __init__(self, travel: Callable[[Sequence[S]], Awaitable[Sequence[bytes]]], *, steps: int, size: int) -> None:
        self._travel = travel
        self._steps = steps
        self._size = size
        self._waiting: deque[S] = deque()
        self._task: asyncio.Task[None] | None = None

    def add(self, *steps: S) -> None:
        """Have these done, after all that were added before."""
        self._waiting.extend(steps)
        if self._task is None and self._waiting:
            self._task = asyncio.create_task(self._run())

    def refuse(self, error: BusError) -> None:
        """Fail what has not set out."""
        waiting, self._waiting = self._waiting, deque()
        for step in waiting:
            step.failed(error)

    async def idle(self) -> None:
        """Until nothing is on its way."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            while self._waiting:
                trip = self._next_trip()
                if not trip:
                    continue
                try:
                    answers = await self._travel(trip)
                except BusError as error:
                    for step in trip:
                        step.failed(error)
                    continue
                for step, answer in zip(trip, answers, strict=True):
                    step.done(answer)
        finally:
            self._task = None

    def _next_trip(self) -> list[S]:
        size = number = 0
        for step in islice(self._waiting, self._steps):
            size += step.size
            if number and size > self._size:
                break
            number += 1
        return [step for step in [self._waiting.popleft() for _ in range(number)] if step.sets_out()]
