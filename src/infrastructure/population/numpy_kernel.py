"""The kernel that needs nothing but numpy: whole micro-batches at a time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import ADOPTED, GRID, LOCALITY
from infrastructure.population.field import COUNT_BITS, Behaviour, Count, Field, TickKeys
from infrastructure.population.kernel import Taken
from infrastructure.population.randomness import STRIDE, draw, partners_of
from infrastructure.population.rings import RingReader

__all__ = ["NumpyKernel"]

_NEVER = np.int64(2**63 - 1)
_UNIT = 2.0**-53
_11, _32, _1 = np.uint64(11), np.uint64(32), np.uint64(1)
_COUNT_MASK = (1 << COUNT_BITS) - 1


class NumpyKernel:
    """See `Kernel`."""

    name = "numpy"

    def __init__(self, field: Field) -> None:
        self._field = field
        self._reader = RingReader(field)
        self._keys = TickKeys.of(field.spec, 0)
        rows = 0 if field.behaviour is Behaviour.OWN else field.columns.rows
        # Sum and count in one word, so that a message is folded by one addition.
        self._packed = field.packs
        self._degree = field.graph.degree if field.graph else -1
        self._numbered = False
        self._first = np.zeros(rows, np.int64)
        self._second = np.zeros(0 if self._packed else rows, np.int64)
        self._opinion = np.zeros(rows, np.int64)
        self._bound = np.zeros(rows, np.int64)
        self._everyone = True
        self._uniform_bound: int | None = None
        self._share: float | None = None
        self._rows = field.rows.astype(np.int64)

    def refresh(self, tick: int) -> None:
        """See `Kernel`."""
        columns = self._field.columns
        self._everyone = bool(np.all(columns.activity >= 1.0))
        self._numbered = bool(np.array_equal(columns.id, np.arange(columns.rows, dtype=np.uint64)))
        if not self._first.size:
            return
        self._opinion[:] = columns.opinion[tick % 2] * GRID
        self._bound[:] = columns.bound * GRID
        least, most = int(self._bound.min()), int(self._bound.max())
        self._uniform_bound = least if least == most else None
        share = float(columns.susceptibility[0])
        self._share = share if bool(np.all(columns.susceptibility == share)) else None

    def begin(self, keys: TickKeys) -> None:
        """See `Kernel`."""
        self._keys = keys
        self._first.fill(_NEVER if self._field.behaviour is Behaviour.VOTER else 0)
        self._second.fill(0)

    def emit(self, source: int, start: int, stop: int, position: NDArray[np.int64]) -> tuple[int, int]:
        """See `Kernel`."""
        field, messages = self._field, self._field.spec.messages
        places = np.arange(start, stop, dtype=np.int64)
        rows = self._rows[start:stop] if messages == 1 else self._rows[places // messages]
        position[:] = field.heads[:, source, :]
        places, rows, targets = self._addressed(places, rows)
        shards, bins = field.shards, field.lanes * field.shards
        key = field.block_shard[targets // np.uint64(LOCALITY)] if shards > 1 else np.zeros(places.size, np.uint16)
        if field.lanes > 1:
            key = key + field.columns.priority[rows].astype(np.uint16) * np.uint16(shards)
        room = field.capacity - (position - field.tails[:, :, source]).reshape(-1)
        amounts = np.bincount(key, minlength=bins)
        if bool(np.any(amounts > room)):
            # As many as fit, in their order.
            fitting = _fitting(key, room)
            if fitting < places.size:
                stop = int(places[fitting])
            places, rows, targets, key = places[:fitting], rows[:fitting], targets[:fitting], key[:fitting]
            amounts = np.bincount(key, minlength=bins)
        if not places.size:
            return stop, 0
        words = targets << _32
        words |= rows.view(np.uint64)
        if self._opinion.size:
            values = self._opinion.take(rows)
        else:
            values = (field.columns.opinion[(self._keys.tick - 1) % 2].take(rows) * GRID).astype(np.int64)
        if bins > 1:
            order = np.argsort(key.astype(np.uint8) if bins <= 256 else key, kind="stable")
            words, values, key = words.take(order), values.take(order), key.take(order)
        self._put(source, words, values, key, amounts, position)
        return stop, int(places.size)

    def _addressed(
        self, places: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        """Who of these rows speaks, and to whom."""
        field, columns, keys = self._field, self._field.columns, self._keys
        speaks: NDArray[np.bool_] | None = None
        if field.has_free_rows:
            speaks = columns.alive[rows] == 1
        if not self._everyone:
            chance = (draw(keys.activity, columns.id[rows]) >> _11).astype(np.float64) * _UNIT
            eager = chance < columns.activity[rows]
            speaks = eager if speaks is None else speaks & eager
        if field.graph is not None:
            if self._degree >= 0:
                first, degree = rows * self._degree, np.full(1, self._degree, np.int64)
            else:
                first = field.graph.offsets.take(rows)
                degree = field.graph.offsets.take(rows + 1) - first
            if not bool(degree.all()):
                speaks = degree > 0 if speaks is None else speaks & (degree > 0)
        if speaks is not None and not bool(speaks.all()):
            places, rows = places[speaks], rows[speaks]
            if field.graph is not None:
                first = first[speaks]
                degree = degree if degree.size == 1 else degree[speaks]
        messages = field.spec.messages
        if field.graph is None:
            if messages == 1:
                return places, rows, partners_of(keys.pairings[0], rows.astype(np.uint64))
            targets = np.zeros(rows.size, np.uint64)
            for number, pairing in enumerate(keys.pairings):
                these = places % messages == number
                targets[these] = partners_of(pairing, rows[these].astype(np.uint64))
            return places, rows, targets
        counters = rows.view(np.uint64) if self._numbered else columns.id.take(rows)
        if messages > 1:
            counters = counters + (places % messages).astype(np.uint64) * np.uint64(STRIDE)
        chosen = ((draw(keys.recipient, counters) >> _32) * degree.astype(np.uint64)) >> _32
        first += chosen.astype(np.int64)
        return places, rows, field.graph.targets.take(first).astype(np.uint64)

    def _put(
        self,
        source: int,
        words: NDArray[np.uint64],
        values: NDArray[np.int64],
        key: NDArray[Any],
        amounts: NDArray[np.int64],
        position: NDArray[np.int64],
    ) -> None:
        """Write sorted messages behind the heads of their rings."""
        field, shards = self._field, self._field.shards
        heads = position.reshape(-1)
        numbers = np.arange(field.lanes * shards, dtype=np.int64)
        rings = (numbers // shards * shards + source) * shards + numbers % shards
        ends = np.cumsum(amounts)
        slots = np.arange(words.size) + (heads - (ends - amounts)).take(key)
        slots &= field.capacity - 1
        slots += (rings * field.capacity).take(key)
        field.who[slots] = words
        field.values[slots] = values
        heads += amounts

    def drain(self) -> int:
        """See `Kernel`."""
        field = self._field
        moved = expired = 0
        for who, values in self._reader.take_lanes():
            if who.size:
                moved += who.size
                expired += self._hear(who, values)
        if not moved:
            return 0
        counts = field.counts[field.worker]
        counts[Count.DELIVERED] += moved - expired
        counts[Count.EXPIRED] += expired
        self._reader.tally(time.perf_counter_ns())
        return moved

    def _hear(self, who: NDArray[np.uint64], values: NDArray[np.int64]) -> int:
        """Fold these messages; how many of them were to agents who have retired."""
        field = self._field
        rows = (who >> _32).view(np.int64)
        expired = 0
        if field.has_free_rows:
            living = field.columns.alive.take(rows) == 1
            expired = int(rows.size - np.count_nonzero(living))
            if expired:
                rows, values, who = rows[living], values[living], who[living]
        self._fold(rows, values, who)
        return expired

    def _fold(self, rows: NDArray[np.int64], values: NDArray[np.int64], who: NDArray[np.uint64]) -> None:
        kind = self._field.behaviour
        if kind is Behaviour.VOTER:
            chance = (draw(self._keys.choice, who) >> _1).astype(np.int64)
            np.minimum.at(self._first, rows, chance)
            chosen = self._first.take(rows) == chance
            self._second[rows[chosen]] = values[chosen]
            return
        if kind is Behaviour.BOUNDED_CONFIDENCE:
            bound = self._bound.take(rows) if self._uniform_bound is None else self._uniform_bound
            apart = self._opinion.take(rows)
            apart -= values
            near = np.flatnonzero(np.abs(apart, out=apart) <= bound)
            rows, values = rows.take(near), values.take(near)
        elif kind is Behaviour.THRESHOLD:
            values = (values >= int(ADOPTED * GRID)).astype(np.int64)
        if self._packed:
            np.add.at(self._first, rows, (values << COUNT_BITS) + 1)
        else:
            np.add.at(self._first, rows, values)
            np.add.at(self._second, rows, 1)

    def take(self) -> Taken:
        """See `Kernel`."""
        taken = self._reader.take()
        if taken[0].size:
            self._reader.tally(time.perf_counter_ns())
        return taken

    def step(self, start: int, stop: int) -> None:
        """See `Kernel`."""
        field, columns, tick = self._field, self._field.columns, self._keys.tick
        rows = self._rows[start:stop]
        if not rows.size:
            return
        where = _where(rows)
        present = self._opinion[where]
        found = self._next(where, present)
        if field.has_free_rows:
            living = columns.alive[where] == 1
            found = np.where(living, found, present)
            counted = np.where(living, found, 0)
        else:
            counted = found
        columns.opinion[tick % 2][where] = found * (1.0 / GRID)
        self._opinion[where] = found
        blocks = rows // LOCALITY
        begins = np.flatnonzero(np.diff(blocks, prepend=-1))
        field.block_sums[blocks[begins]] = np.add.reduceat(counted, begins)

    def _next(self, where: Any, present: NDArray[np.int64]) -> NDArray[np.int64]:
        columns, kind = self._field.columns, self._field.behaviour
        if kind is Behaviour.VOTER:
            chance = (draw(self._keys.adoption, columns.id[where]) >> _11).astype(np.float64) * _UNIT
            adopts = (self._first[where] != _NEVER) & (chance < columns.susceptibility[where])
            return np.where(adopts, self._second[where], present)
        total, count = self._total_and_count(where)
        if kind is Behaviour.THRESHOLD:
            enough = (count > 0) & (total.astype(np.float64) >= columns.bound[where] * count)
            return np.where(enough, np.int64(GRID), present)
        # Nothing where nothing was heard.
        way = (total - count * present) / np.maximum(count, 1)
        way *= columns.susceptibility[where] if self._share is None else self._share
        return present + np.rint(way, out=way).astype(np.int64)

    def _total_and_count(self, where: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        field, kind = self._field, self._field.behaviour
        if field.graph is None or kind is Behaviour.BOUNDED_CONFIDENCE:
            if self._packed:
                packed = self._first[where]
                return packed >> COUNT_BITS, packed & _COUNT_MASK
            return self._first[where], self._second[where]
        now = field.columns.opinion[(self._keys.tick - 1) % 2]
        rows = np.arange(where.start, where.stop) if isinstance(where, slice) else where
        first = field.graph.offsets.take(rows)
        count = field.graph.offsets.take(rows + 1) - first
        ends = np.cumsum(count)
        edges = np.arange(int(ends[-1])) + np.repeat(first - (ends - count), count)
        heard = now.take(field.graph.targets.take(edges))
        units = (heard >= ADOPTED).astype(np.int64) if kind is Behaviour.THRESHOLD else (heard * GRID).astype(np.int64)
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(units)])
        return sums[ends] - sums[ends - count], count


def _where(rows: NDArray[np.int64]) -> Any:
    """The rows as a slice where they lie in a row, which spares a copy."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first == rows.size - 1 else rows


def _fitting(key: NDArray[Any], room: NDArray[np.int64]) -> int:
    """How many of the first messages fit into their rings, none of which may overflow."""
    order = np.argsort(key, kind="stable")
    amounts = np.bincount(key, minlength=room.size)
    ranks = np.empty(key.size, np.int64)
    ranks[order] = np.arange(key.size) - np.repeat(np.cumsum(amounts) - amounts, amounts)
    late = np.flatnonzero(ranks >= room.take(key))
    return int(late[0]) if late.size else int(key.size)
