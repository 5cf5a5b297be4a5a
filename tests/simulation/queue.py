"""A work queue that processes share: it hands out at least once, sometimes twice, and puts back what the dead had in hand."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress

from application.ports.work_queue import JOB_VERSION, Job
from domain.errors.dependency import DependencyUnavailableError
from tests.simulation.machine import SimulatedProcess, in_no_process
from tests.simulation.store import SimulatedStore

__all__ = ["QueueLink", "SimulatedQueue"]

_STALLED_S = 3.0
_PAUSE_S = 0.5
_UNKNOWN_S = 2.0


class SimulatedQueue:
    """The queue itself. It is away whenever the store is, as two sets of tables of one database are."""

    def __init__(self, store: SimulatedStore, chance: random.Random) -> None:
        self.store = store
        self._chance = chance
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._in_hand: dict[int, tuple[Job, SimulatedProcess]] = {}
        self._numbers = 0
        self._news: list[asyncio.Event] = []

    @property
    def waiting_count(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, job: Job) -> None:
        """Let it wait, unless one for the same deliberation waits."""
        if job.deliberation_id not in self._waiting:
            self._waiting[job.deliberation_id] = job
            self.announce()

    def withdraw(self, deliberation_id: str) -> bool:
        """Take it back."""
        return self._waiting.pop(deliberation_id, None) is not None

    def take(self, process: SimulatedProcess) -> tuple[int, Job] | None:
        """The next job; sometimes it waits for somebody else all the same."""
        if not self._waiting:
            return None
        _, job = self._waiting.popitem(last=False)
        self._numbers += 1
        self._in_hand[self._numbers] = job, process
        if self._chance.random() < self.store.weather.repeated:
            self.put(job)
        return self._numbers, job

    def finish(self, number: int) -> None:
        """That one is over."""
        self._in_hand.pop(number, None)

    def put_back(self, number: int) -> None:
        """That one waits again."""
        job, _ = self._in_hand.pop(number, (None, None))
        if job is not None:
            self.put(job)

    def put_later(self, job: Job) -> None:
        """Offer it again in a while, perhaps to a worker that knows what it means."""
        in_no_process(asyncio.get_running_loop().call_later, _UNKNOWN_S, self.put, job)

    def miss(self, process: SimulatedProcess) -> None:
        """That process is silent: before long what it had in hand waits again."""
        seconds = self._chance.uniform(0.0, _STALLED_S)
        in_no_process(asyncio.get_running_loop().call_later, seconds, self._take_over, process)

    def listen(self) -> asyncio.Event:
        """Set at each news, for good."""
        news = asyncio.Event()
        self._news.append(news)
        return news

    def announce(self) -> None:
        """There is something to look for."""
        for news in self._news:
            news.set()

    def _take_over(self, process: SimulatedProcess) -> None:
        if process.is_gone or process.is_frozen:
            for number in [own for own, (_, holder) in self._in_hand.items() if holder is process]:
                self.put_back(number)


class QueueLink:
    """`WorkQueue` of one process."""

    def __init__(self, queue: SimulatedQueue, process: SimulatedProcess) -> None:
        self._queue = queue
        self._process = process

    async def put(self, job: Job) -> None:
        """See `WorkQueue.put`."""
        await self._reach()
        self._queue.put(job)

    async def withdraw(self, deliberation_id: str) -> bool:
        """See `WorkQueue.withdraw`."""
        await self._reach()
        return self._queue.withdraw(deliberation_id)

    async def waiting_count(self) -> int:
        """See `WorkQueue.waiting_count`."""
        await self._reach()
        return self._queue.waiting_count

    async def serve(self, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int, stopping: asyncio.Event) -> None:
        """See `WorkQueue.serve`. Cancelled, it cancels what it has in hand, which then waits again."""
        news = self._queue.listen()
        in_hand: dict[asyncio.Task[None], int] = {}

        def over(task: asyncio.Task[None]) -> None:
            number = in_hand.pop(task)
            if not self._process.is_gone:
                self._queue.finish(number)
            news.set()

        async def work(job: Job) -> None:
            if job.version > JOB_VERSION:
                self._queue.put_later(job)
                return
            # What is raised is logged by the worker itself, or is that the store is away; the job is over.
            with suppress(DependencyUnavailableError):
                await handle(job)

        stop = asyncio.get_running_loop().create_task(stopping.wait())
        stop.add_done_callback(lambda _: news.set())
        try:
            while not stopping.is_set():
                news.clear()
                away = self._queue.store.is_away
                while not away and len(in_hand) < at_a_time and (taken := self._queue.take(self._process)):
                    number, job = taken
                    task = asyncio.get_running_loop().create_task(work(job))
                    in_hand[task] = number
                    task.add_done_callback(over)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PAUSE_S if away else None):
                        await news.wait()
            while in_hand:
                await asyncio.wait(in_hand)
        finally:
            stop.cancel()
            for task in list(in_hand):
                if not self._process.is_gone:
                    self._queue.put_back(in_hand[task])
                task.cancel()
            if in_hand:
                await asyncio.wait(in_hand)

    async def _reach(self) -> None:
        if self._process.is_gone:
            raise asyncio.CancelledError
        if self._queue.store.is_away:
            await asyncio.sleep(_PAUSE_S)
            raise DependencyUnavailableError(dependency="queue", problem="it is away")
