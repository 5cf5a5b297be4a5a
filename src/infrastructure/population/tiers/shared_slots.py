"""The hot tier: states as they are, in slots of shared memory that has no name."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.population import StateStoreFullError
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.tiers.batches import matched, opened
from infrastructure.population.tiers.places import Places
from infrastructure.population.tiers.records import Words

__all__ = ["SharedSlots"]


class SharedSlots:
    """A `StateCache` for keys below `keys`. `places` says which key has which slot; `words` and `versions` are the slots."""

    def __init__(self, *, keys: int, slots: int, size: int) -> None:
        """Take the memory of all slots. Raises `NotEnoughMemoryError`."""
        layout = Layout()
        layout.add("words", np.int64, slots, size // 8)
        layout.add("versions", np.int64, slots)
        self._arena = Arena(layout)
        self._lock = threading.Lock()
        self.size = size
        self.places = Places(keys, slots)
        self.words: Words = self._arena["words"]
        self.versions: NDArray[np.int64] = self._arena["versions"]
        # The slots as bytes, one after the other.
        self.memory = self.words.reshape(-1).view(np.uint8).data

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        with self._lock:
            return [self._record(int(slot)) for slot in self.places.place_of[np.asarray(keys, np.int64)]]

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        new = opened(batch, self.size)
        with self._lock:
            slots = self.places.place_of[new.keys]
            matched(new.keys, new.expected, np.where(slots >= 0, self.versions[slots], 0))
            strangers = new.keys[slots < 0]
            free = int(np.count_nonzero(self.places.key_at < 0))
            if strangers.size > free:
                raise StateStoreFullError(wanted=strangers.size, free=free)
            # Nobody gives way here: who is to go is decided by who drops them.
            taken = np.flatnonzero(self.places.key_at >= 0).astype(np.int32)
            self.places.admit(strangers, beside=taken)
            slots = self.places.place_of[new.keys]
            self.words[slots] = new.states.view(np.int64)
            self.versions[slots] = new.versions

    def drop(self, keys: Sequence[int]) -> None:
        """See `StateCache`."""
        with self._lock:
            given = np.asarray(keys, np.int64)
            self.places.leave(given[self.places.place_of[given] >= 0])

    def close(self) -> None:
        """See `StateStore`."""
        self._arena.close()

    def _record(self, slot: int) -> StateRecord | None:
        if slot < 0 or not self.versions[slot]:
            return None
        return StateRecord(int(self.versions[slot]), self.words[slot].tobytes())
