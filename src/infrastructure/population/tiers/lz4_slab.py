"""The warm tier in memory: states compressed by LZ4, in a slab of small units that any of them may use."""

from __future__ import annotations

import mmap
import threading
from array import array
from collections.abc import Sequence
from typing import Any

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.population import DamagedRecordError, StateConflictError, StateStoreFullError
from infrastructure.population.tiers.batches import checked

__all__ = ["Lz4Slab", "slab_bytes"]

_UNITS = 8
_NONE = -1
_EACH_SLOT = 8 + 4 + 4 * _UNITS


def slab_bytes(*, keys: int, slots: int, size: int) -> int:
    """The most memory that such a slab takes: where nothing can be compressed."""
    return keys * 4 + slots * (_unit(size) * _UNITS + _EACH_SLOT + 8 * _UNITS)


class Lz4Slab:
    """A `StateCache` of so many slots for keys below `keys`. A state takes up to eight units; memory is taken as it is used."""

    def __init__(self, *, keys: int, slots: int, size: int) -> None:
        from lz4 import block

        self._block: Any = block
        self._lock = threading.Lock()
        self.size = size
        self._unit = _unit(size)
        self._memory = mmap.mmap(-1, slots * _UNITS * self._unit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._slot_of = array("i", [_NONE]) * keys
        self._versions = array("q", [0]) * slots
        self._lengths = array("i", [0]) * slots
        self._units = array("i", [_NONE]) * (slots * _UNITS)
        self._free_slots = array("i", range(slots - 1, -1, -1))
        self._free_units = array("i", range(slots * _UNITS - 1, -1, -1))

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        with self._lock:
            return [self._record(self._slot_of[key]) for key in keys]

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        checked(batch, self.size)
        with self._lock:
            slots = [self._slot_of[key] for key in batch.keys]
            for key, slot, expected in zip(batch.keys, slots, batch.expected, strict=True):
                found = self._versions[slot] if slot >= 0 else 0
                if found != expected:
                    raise StateConflictError(agent=int(key), expected=int(expected), found=found)
            strangers = slots.count(_NONE)
            if strangers > len(self._free_slots):
                raise StateStoreFullError(wanted=strangers, free=len(self._free_slots))
            states = memoryview(batch.states)
            for number, (key, slot, version) in enumerate(zip(batch.keys, slots, batch.versions, strict=True)):
                plain = states[number * self.size : (number + 1) * self.size]
                place = slot if slot >= 0 else self._free_slots.pop()
                self._slot_of[key] = place
                self._fill(place, version, plain)

    def drop(self, keys: Sequence[int]) -> None:
        """See `StateCache`."""
        with self._lock:
            for key in keys:
                slot = self._slot_of[key]
                if slot >= 0:
                    self._slot_of[key] = _NONE
                    self._empty(slot)
                    self._versions[slot] = 0
                    self._free_slots.append(slot)

    def close(self) -> None:
        """See `StateStore`."""
        self._memory.close()

    @property
    def used_bytes(self) -> int:
        """What its states take now."""
        return (len(self._units) - len(self._free_units)) * self._unit

    def _fill(self, slot: int, version: int, plain: memoryview) -> None:
        kept = self._block.compress(plain, store_size=False)
        if len(kept) >= self.size:
            kept = plain
        self._empty(slot)
        unit, first = self._unit, slot * _UNITS
        for number, begin in enumerate(range(0, len(kept), unit)):
            place = self._free_units.pop()
            self._units[first + number] = place
            piece = kept[begin : begin + unit]
            self._memory[place * unit : place * unit + len(piece)] = piece
        self._lengths[slot] = len(kept)
        self._versions[slot] = version

    def _empty(self, slot: int) -> None:
        """Give the units of that slot back."""
        first = slot * _UNITS
        for number in range(first, first + -(-self._lengths[slot] // self._unit)):
            self._free_units.append(self._units[number])
        self._lengths[slot] = 0

    def _record(self, slot: int) -> StateRecord | None:
        if slot < 0:
            return None
        unit, memory, length, first = self._unit, self._memory, self._lengths[slot], slot * _UNITS
        units = self._units[first : first + -(-length // unit)]
        kept = b"".join([memory[place * unit : (place + 1) * unit] for place in units])[:length]
        return StateRecord(self._versions[slot], self._plain(kept))

    def _plain(self, kept: bytes) -> bytes:
        if len(kept) == self.size:
            return kept
        try:
            plain: bytes = self._block.decompress(kept, uncompressed_size=self.size)
        except self._block.LZ4BlockError as error:
            raise DamagedRecordError(
                path="the warm tier", problem=f"holds no state ({error})", last_good_tick=0
            ) from error
        return plain


def _unit(size: int) -> int:
    """An eighth of a state, so that one that cannot be compressed fits too; and so small that little of the last one is unused."""
    return -(-size // (8 * _UNITS)) * 8
