"""Writes states through to where they last, beside whoever changed them: in order, bounded, and soon."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from application.ports.state_store import DurableStateStore, StateBatch
from infrastructure.population.tiers.access_times import AccessTimes

__all__ = ["PersistenceQueue"]

_END_S = 30.0


class PersistenceQueue:
    """One thread writes what is put in, a batch at a time; who puts in more than `most` states waits until there is room.

    What could not be written is raised by every call after it, and what came after it is not written either. Off-peak, which is while
    there is nothing to write and nobody is at `peak`, another thread tidies the store, a step at a time.
    """

    def __init__(self, store: DurableStateStore, *, most: int) -> None:
        self._store = store
        self._most = most
        self._batches: deque[tuple[float, StateBatch]] = deque()
        self._states = 0
        self._ending = False
        self._untidy = False
        self._at_peak = 0
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self.times = AccessTimes()
        self.waits = 0
        self.waited_s = 0.0
        self.written = 0
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=f"cold-tier-{name}", daemon=True)
            for name, work in (("writing", self._write_all), ("tidying", self._tidy_up))
        ]
        for thread in self._threads:
            thread.start()

    def put(self, batch: StateBatch) -> None:
        """Have this batch written. Raises what a write before it raised."""
        began = time.perf_counter()
        size = len(batch.keys)
        with self._changed:
            self._raise()
            if self._states and self._states + size > self._most:
                self.waits += 1
                self._changed.wait_for(lambda: self._failure or not self._states or self._states + size <= self._most)
                self.waited_s += time.perf_counter() - began
                self._raise()
            self._states += size
            self._batches.append((time.perf_counter(), batch))
            self._changed.notify_all()

    def settle(self) -> None:
        """Return once all that was put in is written. Raises what a write raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not self._states)
            self._raise()

    @contextmanager
    def peak(self) -> Iterator[None]:
        """Within it nothing is tidied, but for a step that was begun before."""
        with self._changed:
            self._at_peak += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_peak -= 1
                self._changed.notify_all()

    def untidy(self) -> None:
        """Have it tidied again, since more may be let go of than before."""
        with self._changed:
            self._untidy = True
            self._changed.notify_all()

    def close(self) -> None:
        """Write what is left, as far as that can be, and end the threads; may be called twice."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(_END_S)

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again by whoever puts in or settles next
            with self._changed:
                self._failure = self._failure or error
                self._changed.notify_all()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches or self._ending or self._failure)
                if self._failure or not self._batches:
                    return
                since, batch = self._batches.popleft()
            self._store.write(batch)
            waited = time.perf_counter() - since
            with self._changed:
                self.written += len(batch.keys)
                self.times.add(np.full(1, waited), times=len(batch.keys))
                self._states -= len(batch.keys)
                self._untidy = True
                self._changed.notify_all()

    def _tidy_up(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._ending or self._failure or (self._untidy and not (self._states or self._at_peak))
                )
                if self._ending or self._failure:
                    return
                self._untidy = False
            more = self._store.tidy()
            with self._changed:
                self._untidy = self._untidy or more
