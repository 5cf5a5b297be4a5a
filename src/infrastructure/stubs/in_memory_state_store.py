"""Keeps states in a dictionary, for tests and as the plainest reading of the port."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.population import StateConflictError, StateStoreFullError

__all__ = ["InMemoryStateStore"]


class InMemoryStateStore:
    """A `StateCache` that forgets nothing by itself; `most` bounds how many states it takes."""

    def __init__(self, *, size: int, most: int) -> None:
        self.size = size
        self._most = most
        self._records: dict[int, StateRecord] = {}
        self._lock = threading.Lock()

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        with self._lock:
            return [self._records.get(int(key)) for key in keys]

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        keys = [int(key) for key in batch.keys]
        states = bytes(batch.states)
        # No piece of the infrastructure, so that it is a reading of the port of its own.
        if not len(keys) == len(batch.expected) == len(batch.versions) or len(states) != len(keys) * self.size:
            raise ValueError(
                f"a batch of {len(keys)} keys has as many versions, and {self.size} bytes of state for each"
            )
        if any(version <= expected for version, expected in zip(batch.versions, batch.expected, strict=True)):
            raise ValueError("a version follows the one that was expected")
        with self._lock:
            for key, expected in zip(keys, batch.expected, strict=True):
                found = self._records[key].version if key in self._records else 0
                if found != expected:
                    raise StateConflictError(agent=key, expected=int(expected), found=found)
            strangers = [key for key in keys if key not in self._records]
            free = self._most - len(self._records)
            if len(strangers) > free:
                raise StateStoreFullError(wanted=len(strangers), free=free)
            for number, (key, version) in enumerate(zip(keys, batch.versions, strict=True)):
                self._records[key] = StateRecord(int(version), states[number * self.size : (number + 1) * self.size])

    def drop(self, keys: Sequence[int]) -> None:
        """See `StateCache`."""
        with self._lock:
            for key in keys:
                self._records.pop(int(key), None)

    def close(self) -> None:
        """See `StateStore`."""
