"""A durable store of states in memory that a test can hold up, break and watch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from application.ports.state_store import StateBatch, StateRecord
from infrastructure.stubs.in_memory_state_store import InMemoryStateStore

__all__ = ["SlowStore"]


class SlowStore:
    """A `DurableStateStore` whose writes wait while `may_write` is clear, and raise `failure` where one is set."""

    def __init__(self, *, size: int, most: int = 10_000) -> None:
        self._kept = InMemoryStateStore(size=size, most=most)
        self.size = size
        self.may_write = threading.Event()
        self.may_write.set()
        self.failure: Exception | None = None
        self.batches: list[list[int]] = []
        self.reads = 0
        self.tidied = 0
        self.to_tidy = 0

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        found = self._kept.read(keys)
        self.reads += 1
        return found

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        assert self.may_write.wait(60)
        if self.failure is not None:
            raise self.failure
        self._kept.write(batch)
        self.batches.append([int(key) for key in batch.keys])

    def tidy(self) -> bool:
        """See `DurableStateStore`."""
        self.tidied += 1
        self.to_tidy -= 1
        return self.to_tidy > 0

    def spoil(self, key: int) -> None:
        """Change one bit of what is kept of that key."""
        (record,) = self._kept.read([key])
        assert record is not None
        state = bytes([record.state[0] ^ 1]) + record.state[1:]
        self._kept.drop([key])
        self._kept.write(StateBatch(0, [key], [0], [record.version], state))

    def begin(self) -> None:
        """See `DurableStateStore`."""

    def rewind(self, tick: int) -> None:
        """See `DurableStateStore`."""

    def scan(self) -> Iterator[StateBatch]:
        """See `DurableStateStore`."""
        return iter(())

    def keep(self, ticks: Sequence[int]) -> None:
        """See `DurableStateStore`."""

    def sync(self) -> None:
        """See `DurableStateStore`."""

    def close(self) -> None:
        """See `StateStore`."""
