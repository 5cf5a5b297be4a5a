"""The kernel that needs nothing but numpy: whole micro-batches at a time."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import ADOPTED, GRID, LOCALITY
from infrastructure.population.field import COUNT_BITS, Behaviour, Count, Field, TickKeys
from infrastructure.population.kernel import Taken
from infrastructure.population.numpy_pieces import Letters, Part, taken
from infrastructure.population.randomness import STRIDE, draw, finish, partners_of
from infrastructure.population.ring_writer import RingWriter
from infrastructure.population.rings import RingReader

__all__ = ["NumpyKernel"]

_NEVER = np.int64(2**63 - 1)
_UNIT = 2.0**-53
_GRID = float(GRID)
_11, _32, _1 = np.uint64(11), np.uint64(32), np.uint64(1)
_COUNT_MASK = (1 << COUNT_BITS) - 1
_LOCALITY = np.uint64(LOCALITY)
_BYTE = 255
# Parts are kept for rows that send and rows that are stepped.
_PARTS = 2


class NumpyKernel:
    """See `Kernel`. Calls are few, since each costs as much as some hundred messages; rows are read a community at a time."""

    name = "numpy"

    def __init__(self, field: Field) -> None:
        self._field = field
        self._reader = RingReader(field)
        self._keys = TickKeys.of(field.spec, 0)
        self._whole, self._now = True, field.columns.opinion[1]
        self._writer = RingWriter(field)
        self._packed = field.packs
        # What a row heard lies in one line of the cache: its opinion, then sum and count in one word where they are packed, else
        # in two; for `voter` the least chance drawn, and the opinion that came with it.
        words = 2 if self._packed or field.behaviour is Behaviour.VOTER else 4
        rows = 0 if field.behaviour is Behaviour.OWN else field.columns.rows
        self._heard = np.zeros((rows, words), np.int64)
        flat = self._heard.reshape(-1)
        self._first, self._second, self._third = flat, flat[1:], flat[2:]
        # A word of the rings, moved by so much, says where in `flat` its recipient is: row numbers of senders have fewer bits.
        self._place_shift = np.uint64(33 - words.bit_length())
        self._row_shift = words.bit_length() - 1
        # Neighbours are read, and not listened to.
        self._listens = field.graph is None or field.behaviour not in {Behaviour.DEGROOT, Behaviour.THRESHOLD}
        self._bound = np.zeros(rows, np.int64)
        self._degree = field.graph.degree if field.graph else -1
        self._among = np.uint64(max(0, self._degree))
        self._shard_of = field.block_shard.astype(np.uint8 if field.shards <= _BYTE else np.uint16)
        # Rows that lie beside each other wherever there are some: a community, or less where the last one is not whole.
        self._width = math.gcd(field.columns.rows, LOCALITY)
        self._everyone = True
        self._uniform_bound: int | None = None
        self._share: float | None = None
        self._parts: list[Part] = []
        self.attend(field.rows)

    def refresh(self, tick: int) -> None:
        """See `Kernel`."""
        columns = self._field.columns
        self._everyone = bool(np.all(columns.activity >= 1.0))
        attended = self._parts[0].attended
        self._parts.clear()
        self.attend(attended)
        if not self._heard.size:
            return
        self._heard[:] = 0
        self._heard[:, 0] = self._unheard(columns.opinion[tick % 2])
        self._bound[:] = columns.bound * GRID
        least, most = int(self._bound.min()), int(self._bound.max())
        self._uniform_bound = least if least == most else None
        share = float(columns.susceptibility[0])
        self._share = share if bool(np.all(columns.susceptibility == share)) else None

    def attend(self, rows: NDArray[np.uint32]) -> None:
        """See `Kernel`."""
        part = next((part for part in self._parts if part.attended is rows), None)
        if part is None:
            part = Part.of(rows, self._field.columns.id, width=self._width, degree=self._degree)
        self._parts = [part, *(other for other in self._parts if other is not part)][:_PARTS]

    def forget(self, rows: NDArray[np.uint32], tick: int) -> None:
        """See `Kernel`."""
        if self._heard.size and rows.size:
            self._heard[rows] = 0
            self._heard[rows, 0] = self._unheard(self._field.columns.opinion[tick % 2][rows])

    def begin(self, keys: TickKeys) -> None:
        """See `Kernel`."""
        self._keys = keys
        self._whole = not self._field.has_free_rows
        self._now = self._field.columns.opinion[(keys.tick - 1) % 2]

    def emit(self, source: int, start: int, stop: int, position: NDArray[np.int64]) -> tuple[int, int]:
        """See `Kernel`."""
        writer = self._writer
        room = writer.room(source)
        if not writer.is_worth_a_piece(room):
            return start, 0
        letters = self._letters(start, stop)
        key = self._key_of(letters)
        if letters.size > room:
            # As many as fit, in their order.
            count = writer.fitting(source, key)
            if count < letters.size:
                stop = start + count if letters.places is None else int(letters.places[count])
                letters, key = letters.first(count), key[:count]
        if letters.size:
            writer.write(source, letters, key, position)
        return stop, letters.size

    def _letters(self, start: int, stop: int) -> Letters:
        """What these places have to say, and to whom."""
        field, keys, part = self._field, self._keys, self._parts[0]
        graph, messages, degree = field.graph, field.spec.messages, self._degree
        now = self._now
        if graph is not None and degree > 0 and messages == 1 and self._everyone and self._whole:
            # All of these rows speak: nothing is asked of each of them.
            rows = part.rows[start:stop]
            chosen = part.counters[start:stop] + np.uint64(keys.recipient)
            finish(chosen)
            chosen >>= _32
            chosen *= self._among
            chosen >>= _32
            edges = chosen.view(np.int64)
            edges += part.edges[start:stop]
            targets = graph.targets.take(edges).astype(np.uint64)
            # Rings that were full may have ended the last piece anywhere.
            whole = start % self._width == 0
            said = taken(now, part.units_of(start, stop), self._width).reshape(-1) if whole else now.take(rows)
            return Letters(None, rows, targets, self._on_grid(said))
        places = np.arange(start, stop, dtype=np.int64)
        rows = part.rows[start:stop] if messages == 1 else part.rows.take(places // messages)
        places, rows, targets = self._addressed(places, rows)
        return Letters(places, rows, targets, self._on_grid(now.take(rows)))

    def _addressed(
        self, places: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
        """Who of these rows speaks, and to whom."""
        field, columns, keys = self._field, self._field.columns, self._keys
        speaks: NDArray[np.bool_] | None = None
        if not self._whole:
            speaks = columns.alive.take(rows) == 1
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
        counters = columns.id.take(rows)
        if messages > 1:
            counters = counters + (places % messages).astype(np.uint64) * np.uint64(STRIDE)
        chosen = ((draw(keys.recipient, counters) >> _32) * degree.astype(np.uint64)) >> _32
        first += chosen.astype(np.int64)
        return places, rows, field.graph.targets.take(first).astype(np.uint64)

    def _key_of(self, letters: Letters) -> NDArray[Any]:
        """The ring of the sender's shard that each of these belongs into."""
        field = self._field
        if field.shards > 1:
            key: NDArray[Any] = self._shard_of.take((letters.targets // _LOCALITY).view(np.int64))
        else:
            key = np.zeros(letters.size, np.uint8)
        if field.lanes > 1:
            kind = np.uint8 if field.lanes * field.shards <= _BYTE else np.uint16
            lanes: NDArray[Any] = field.columns.priority.take(letters.rows).astype(kind)
            lanes *= kind(field.shards)
            key = key + lanes
        return key

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
        if expired:
            counts[Count.EXPIRED] += expired
        self._reader.tally(time.perf_counter_ns())
        return moved

    def hear(self, taken: Taken) -> None:
        """See `Kernel`."""
        who, values, _ = taken
        expired = self._hear(who, values)
        counts = self._field.counts[self._field.worker]
        counts[Count.DELIVERED] += who.size - expired
        counts[Count.EXPIRED] += expired

    def _hear(self, who: NDArray[np.uint64], values: NDArray[np.int64]) -> int:
        """Fold these messages; how many of them were to agents who have retired."""
        field = self._field
        expired = 0
        if not self._whole:
            living = field.columns.alive.take((who >> _32).view(np.int64)) == 1
            expired = int(who.size - np.count_nonzero(living))
            if expired:
                values, who = values[living], who[living]
        if self._listens:
            self._fold((who >> self._place_shift).view(np.int64), values, who)
        return expired

    def _fold(self, places: NDArray[np.int64], values: NDArray[np.int64], who: NDArray[np.uint64]) -> None:
        kind = self._field.behaviour
        if kind is Behaviour.VOTER:
            chance = (draw(self._keys.choice, who) >> _1).view(np.int64)
            np.minimum.at(self._first, places, chance)
            chosen = self._first.take(places) == chance
            self._second[places[chosen]] = values[chosen]
            return
        if kind is Behaviour.BOUNDED_CONFIDENCE:
            apart = self._first.take(places)
            apart -= values
            np.abs(apart, out=apart)
            bound: Any = self._uniform_bound
            bound = self._bound.take(places >> self._row_shift) if bound is None else bound
            near = (apart <= bound).nonzero()[0]
            places, values = places.take(near), values.take(near)
        elif kind is Behaviour.THRESHOLD:
            values = (values >= int(ADOPTED * GRID)).astype(np.int64)
        if self._packed:
            values = values << COUNT_BITS
            values += 1
            np.add.at(self._second, places, values)
        else:
            np.add.at(self._second, places, values)
            np.add.at(self._third, places, 1)

    def take(self) -> Taken:
        """See `Kernel`."""
        taken = self._reader.take()
        if taken[0].size:
            self._reader.tally(time.perf_counter_ns())
        return taken

    def step(self, start: int, stop: int) -> None:
        """See `Kernel`."""
        field, columns, tick, width = self._field, self._field.columns, self._keys.tick, self._width
        units = self._parts[0].units_of(start, stop)
        if not units.size:
            return
        heard = taken(self._heard, units, width)
        voter = field.behaviour is Behaviour.VOTER
        present = self._on_grid(taken(self._now, units, width)) if voter else heard[:, :, 0].copy()
        found = self._next(units, present, heard)
        counted = found
        if not self._whole:
            living = taken(columns.alive, units, width) == 1
            found = np.where(living, found, present)
            counted = np.where(living, found, 0)
        columns.opinion[tick % 2].reshape(-1, width)[units] = found * (1.0 / GRID)
        heard[:, :, 1:] = 0
        heard[:, :, 0] = _NEVER if voter else found
        self._heard.reshape(-1, width, heard.shape[2])[units] = heard
        sums = counted.sum(axis=1)
        if width == LOCALITY:
            field.block_sums[units] = sums
        else:
            blocks = units * width // LOCALITY
            begins = np.flatnonzero(np.diff(blocks, prepend=-1))
            field.block_sums[blocks[begins]] = np.add.reduceat(sums, begins)

    def _next(
        self, units: NDArray[np.int64], present: NDArray[np.int64], heard: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The next opinions in these units, by what is held there and what was heard."""
        columns, kind, width = self._field.columns, self._field.behaviour, self._width
        if kind is Behaviour.VOTER:
            chance = (draw(self._keys.adoption, taken(columns.id, units, width)) >> _11).astype(np.float64) * _UNIT
            adopts = (heard[:, :, 0] != _NEVER) & (chance < taken(columns.susceptibility, units, width))
            return np.where(adopts, heard[:, :, 1], present)
        total, count = self._total_and_count(units, heard)
        if kind is Behaviour.THRESHOLD:
            enough = (count > 0) & (total.astype(np.float64) >= taken(columns.bound, units, width) * count)
            return np.where(enough, np.int64(GRID), present)
        # Nothing where nothing was heard.
        total -= count * present
        way = total / np.maximum(count, 1)
        way *= taken(columns.susceptibility, units, width) if self._share is None else self._share
        return present + np.rint(way, out=way).astype(np.int64)

    def _total_and_count(
        self, units: NDArray[np.int64], heard: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The sum of the opinions that each of them takes into account, which may be written to, and how many they are."""
        graph, width = self._field.graph, self._width
        if graph is None or self._listens:
            if self._packed:
                packed = heard[:, :, 1]
                return packed >> COUNT_BITS, packed & _COUNT_MASK
            return heard[:, :, 1].copy(), heard[:, :, 2]
        now = self._now
        threshold = self._field.behaviour is Behaviour.THRESHOLD
        if self._degree > 0:
            known = now.take(taken(graph.targets.reshape(-1, self._degree), units, width))
            units_of_grid = known >= ADOPTED if threshold else (known * GRID).astype(np.int64)
            return units_of_grid.sum(axis=2, dtype=np.int64), np.full(known.shape[:2], self._degree, np.int64)
        rows = (units[:, None] * width + np.arange(width)).reshape(-1)
        first = graph.offsets.take(rows)
        count = graph.offsets.take(rows + 1) - first
        ends = np.cumsum(count)
        edges = np.arange(int(ends[-1])) + np.repeat(first - (ends - count), count)
        known = now.take(graph.targets.take(edges))
        sums = np.zeros(edges.size + 1, np.int64)
        np.cumsum(known >= ADOPTED if threshold else (known * GRID).astype(np.int64), out=sums[1:])
        return (sums[ends] - sums[ends - count]).reshape(-1, width), count.reshape(-1, width)

    @staticmethod
    def _on_grid(opinions: NDArray[np.float64]) -> NDArray[np.int64]:
        """Opinions that lie on the grid already, in units of it."""
        found = np.empty(opinions.shape, np.int64)
        np.multiply(opinions, _GRID, out=found, casting="unsafe")
        return found

    def _unheard(self, opinions: NDArray[np.float64]) -> Any:
        """The first word of what was heard by rows that hold these opinions, before they hear anything."""
        return _NEVER if self._field.behaviour is Behaviour.VOTER else opinions * GRID
