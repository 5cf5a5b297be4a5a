"""Workers that are threads of this process: the loops that numba compiles run beside each other without a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from numpy.typing import NDArray

from infrastructure.population.shard_worker import AbortedError, ShardWorker

__all__ = ["ThreadTeam"]


class ThreadTeam:
    """See `WorkerTeam`."""

    def __init__(self, make: Callable[[int], ShardWorker], workers: int, aborted: NDArray[Any]) -> None:
        self._aborted = aborted
        self._make = make
        self._workers = [make(number) for number in range(workers)]
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="shards") if workers > 1 else None

    @property
    def processes(self) -> Sequence[int]:
        """None."""
        return ()

    def refresh(self, tick: int) -> None:
        """See `WorkerTeam`."""
        for worker in self._workers:
            worker.refresh(tick)

    def relocate(self, tick: int) -> None:
        """See `WorkerTeam`."""
        self._workers = [self._make(number) for number in range(len(self._workers))]
        self.refresh(tick)

    def tick(self, number: int) -> None:
        """See `WorkerTeam`."""
        if self._threads is None:
            self._workers[0].tick(number)
            return
        futures = [self._threads.submit(worker.tick, number) for worker in self._workers]
        done, rest = wait(futures, return_when=FIRST_EXCEPTION)
        if rest:
            self._aborted[0] = 1
            done |= wait(rest).done
        errors = [error for future in futures if (error := future.exception()) is not None]
        # Those who were left waiting by the first one's error say so, which is no news.
        for error in sorted(errors, key=lambda found: isinstance(found, AbortedError)):
            raise error

    def close(self) -> None:
        """See `WorkerTeam`."""
        self._aborted[0] = 1
        if self._threads is not None:
            self._threads.shutdown()
