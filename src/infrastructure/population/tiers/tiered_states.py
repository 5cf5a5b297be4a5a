"""States of agents in three tiers: whoever is asked for comes to the hot one, and what changes is written through to the cold one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from application.ports.state_store import DurableStateStore, StateBatch, StateCache, StateRecord
from domain.errors.population import DamagedRecordError, StateConflictError
from infrastructure.population.tiers.batches import packed
from infrastructure.population.tiers.persistence_queue import PersistenceQueue
from infrastructure.population.tiers.places import Places
from infrastructure.population.tiers.records import Words, digest_of, digests_of
from infrastructure.population.tiers.shared_slots import SharedSlots

__all__ = ["Change", "Stores", "Tier", "TieredStates"]

Rows = NDArray[np.int64]
Change = Callable[[Words], Words]
"""The next states of some, in their order."""


class Tier(IntEnum):
    """Where a state lies; NEW: nowhere, since nobody has written it yet and it is all zeros."""

    HOT = 0
    WARM = 1
    COLD = 2
    NEW = 3


@dataclass(frozen=True, slots=True)
class Stores:
    """What the tiers are made of. `warm_places` says who may be in `warm`, which may be anywhere."""

    hot: SharedSlots
    warm: StateCache
    warm_places: Places
    cold: DurableStateStore


class TieredStates:
    """One state for each row, zeros at first, each in the tier where it is asked for as often as that; any thread may call.

    A row that is asked for has a place in the hot tier afterwards, and CLOCK says who makes room for it: from hot to warm, from
    warm to where it is written already. `version` and `digest` of every row lie in memory: what comes back from warm or cold is
    compared with them, so that a damaged or an old state is never taken for one.
    """

    def __init__(self, stores: Stores, *, rows: int, queue: PersistenceQueue) -> None:
        self.size = stores.cold.size
        self.version: NDArray[np.uint32] = np.zeros(rows, np.uint32)
        self.digest: NDArray[np.uint64] = np.zeros(rows, np.uint64)
        self._version_view, self._digest_view = self.version.data, self.digest.data
        self.hot = stores.hot
        self._warm, self._warm_places, self._cold = stores.warm, stores.warm_places, stores.cold
        self._queue = queue
        self._lock = threading.RLock()

    @property
    def most_at_once(self) -> int:
        """How many rows `change` takes at a time."""
        return min(self.hot.places.size, self._warm_places.size)

    def tiers_of(self, rows: Rows) -> NDArray[np.int8]:
        """In which tier each of these is."""
        found = np.where(self.version[rows] > 0, np.int8(Tier.COLD), np.int8(Tier.NEW))
        found[self._warm_places.place_of[rows] >= 0] = Tier.WARM
        found[self.hot.places.place_of[rows] >= 0] = Tier.HOT
        return found

    def read(self, row: int) -> StateRecord:
        """The state of one row, which is hot afterwards. Version 0 is that of a state that nobody has written."""
        with self._lock:
            places, size = self.hot.places, self.size
            slot = places.place_view[row]
            version = self._version_view[row]
            if slot >= 0:
                places.touch_one(slot)
                return StateRecord(version, bytes(self.hot.memory[slot * size : slot * size + size]))
            state = self._fetched_one(row, version)
            self._heat_one(row, version, state)
            return StateRecord(version, state)

    def write(self, row: int, state: bytes, *, expected: int, tick: int) -> int:
        """The version that this state of a row has, which was written in `tick` over version `expected`.

        Raises `StateConflictError` where somebody else has written since.
        """
        if len(state) != self.size:
            raise ValueError(f"a state has {self.size} bytes, and not {len(state)}")
        with self._lock:
            found = int(self.version[row])
            if found != expected:
                raise StateConflictError(agent=row, expected=expected, found=found)
            words = np.frombuffer(state, np.int64).reshape(1, -1)
            self.change(np.array([row], np.int64), lambda _: words, tick=tick)
            return found + 1

    def change(self, rows: Rows, change: Change, *, tick: int) -> None:
        """Replace the states of these rows, each named once and `most_at_once` at most, and have them written in `tick`."""
        with self._lock:
            places = self.hot.places
            slots = places.place_of[rows]
            missing = slots < 0
            places.touch(slots[~missing])
            if missing.any():
                self._heat(rows[missing], beside=slots[~missing])
                slots = places.place_of[rows]
            words = change(self.hot.words[slots])
            versions = self.version[rows].astype(np.int64) + 1
            digests = digests_of(words)
            # Where it cannot be written, the states are what they were.
            self._queue.put(packed(tick, rows, versions, words))
            self.hot.words[slots] = words
            self.hot.versions[slots] = versions
            self.version[rows] = versions
            self.digest[rows] = digests

    def settle(self) -> None:
        """Return once all that was changed is written to the cold tier."""
        self._queue.settle()

    def cool(self, rows: Rows, tier: Tier) -> None:
        """Have those of these rows that are hot in that tier, `most_at_once` at most: what pressure of others would do."""
        with self._lock:
            rows = rows[self.hot.places.place_of[rows] >= 0]
            words = self.hot.words[self.hot.places.place_of[rows]]
            self.hot.places.leave(rows)
            if tier is Tier.WARM:
                self._to_warm(rows, words)

    def place(self, hot: Places, warm: Places | None, names: Callable[[Rows], Rows]) -> None:
        """Let rows have the places of those two, whose keys have these `names` as rows, while no state is here yet."""
        self.hot.places.follow(hot, names)
        if warm is not None:
            self._warm_places.follow(warm, names)

    def take_over(self, version: NDArray[np.generic], digest: NDArray[np.generic]) -> None:
        """Begin with the versions and digests of a snapshot, whose states the cold tier has got; those that have a place are hot.

        Raises `ValueError` where these are the columns of another population, and `DamagedRecordError` where a state is not there,
        or not what was written.
        """
        for column, kept in ((self.version, version), (self.digest, digest)):
            if kept.shape != column.shape or kept.dtype != column.dtype:
                raise ValueError("the tiers are those of another population")
            column[:] = kept
        missing = self.version > 0
        places = self.hot.places.place_of
        for batch in self._cold.scan():
            rows, versions = np.asarray(batch.keys, np.int64), np.asarray(batch.versions, np.int64)
            words = np.frombuffer(batch.states, np.int64).reshape(versions.size, -1)
            right = (self.version[rows] == versions) & (digests_of(words) == self.digest[rows])
            rows, versions, words = rows[right], versions[right], words[right]
            missing[rows] = False
            hot = places[rows] >= 0
            self.hot.words[places[rows[hot]]] = words[hot]
            self.hot.versions[places[rows[hot]]] = versions[hot]
        if missing.any():
            raise self._damaged(int(np.flatnonzero(missing)[0]))

    def _heat(self, rows: Rows, *, beside: NDArray[np.int32] | None = None) -> None:
        """Bring these rows into the hot tier, none of which is there; those whose slots are `beside` stay."""
        words = self._fetched(rows)
        slots, left = self.hot.places.admit(rows, beside=beside)
        leaving = left >= 0
        cooled = self.hot.words[slots[leaving]]
        self.hot.words[slots] = words
        self.hot.versions[slots] = self.version[rows]
        self._to_warm(left[leaving].astype(np.int64), cooled)

    def _to_warm(self, rows: Rows, words: Words) -> None:
        if not rows.size:
            return
        _, left = self._warm_places.admit(rows)
        gone = left[(left >= 0)]
        gone = gone[self.version[gone] > 0]
        if gone.size:
            self._warm.drop(gone.tolist())
        written = self.version[rows] > 0
        if written.any():
            versions = self.version[rows[written]].astype(np.int64)
            self._warm.write(packed(0, rows[written], versions, words[written], anew=True))

    def _fetched(self, rows: Rows) -> Words:
        """The states of rows that are not hot, and no longer warm."""
        words = np.zeros((rows.size, self.size // 8), np.int64)
        written = self.version[rows] > 0
        warm = self._warm_places.place_of[rows] >= 0
        inside = np.flatnonzero(warm & written)
        cold = np.flatnonzero(~warm & written)
        if inside.size:
            found = self._warm.read(rows[inside].tolist())
            # A cache somewhere else may have forgotten it.
            forgotten = [number for number, record in zip(inside.tolist(), found, strict=True) if record is None]
            self._fill(words, rows, inside, found)
            self._warm.drop(rows[inside].tolist())
            cold = np.concatenate([cold, np.array(forgotten, np.int64)])
        self._warm_places.leave(rows[warm])
        if cold.size:
            found = self._cold.read(rows[cold].tolist())
            wanted = self.version[rows[cold]].tolist()
            if any(record is None or record.version < version for record, version in zip(found, wanted, strict=True)):
                # It was cooled faster than it was written.
                self._queue.settle()
                found = self._cold.read(rows[cold].tolist())
            self._fill(words, rows, cold, found)
            absent = [int(rows[number]) for number, record in zip(cold.tolist(), found, strict=True) if record is None]
            if absent:
                raise self._damaged(absent[0])
        return words

    def _fetched_one(self, row: int, version: int) -> bytes:
        """As `_fetched` does, one row in less time."""
        warm = self._warm_places.place_view[row] >= 0
        if warm:
            self._warm_places.leave_one(row)
        if not version:
            return bytes(self.size)
        record = None
        if warm:
            (record,) = self._warm.read((row,))
            self._warm.drop((row,))
        if record is None:
            (record,) = self._cold.read((row,))
            if record is None or record.version < version:
                self._queue.settle()
                (record,) = self._cold.read((row,))
        if (
            record is None
            or record.version != version
            or len(record.state) != self.size
            or digest_of(record.state) != self._digest_view[row]
        ):
            raise self._damaged(row)
        return record.state

    def _heat_one(self, row: int, version: int, state: bytes) -> None:
        """As `_heat` does, one row in less time."""
        hot, size = self.hot, self.size
        slot, left = hot.places.admit_one(row)
        held = hot.memory[slot * size : slot * size + size]
        cooled = bytes(held)
        held[:] = state
        hot.versions[slot] = version
        if left < 0:
            return
        _, gone = self._warm_places.admit_one(left)
        if gone >= 0 and self._version_view[gone]:
            self._warm.drop((gone,))
        if self._version_view[left]:
            self._warm.write(StateBatch(0, (left,), (0,), (self._version_view[left],), cooled))

    def _fill(self, words: Words, rows: Rows, numbers: Rows, found: Sequence[StateRecord | None]) -> None:
        """Put what was found where it belongs, once it is what was written."""
        there = [(number, record) for number, record in zip(numbers.tolist(), found, strict=True) if record is not None]
        if not there:
            return
        places = np.array([number for number, _ in there], np.int64)
        states = b"".join([record.state for _, record in there])
        if len(states) != places.size * self.size:
            raise self._damaged(int(rows[places[0]]))
        got = np.frombuffer(states, np.int64).reshape(places.size, -1)
        versions = np.array([record.version for _, record in there], np.int64)
        right = (versions == self.version[rows[places]]) & (digests_of(got) == self.digest[rows[places]])
        if not right.all():
            raise self._damaged(int(rows[places[np.flatnonzero(~right)[0]]]))
        words[places] = got

    def _damaged(self, row: int) -> DamagedRecordError:
        return DamagedRecordError(
            path="the tiers of states",
            problem=f"have not got the state of agent row {row} as it was written",
            last_good_tick=0,
        )
