"""Reads the rings of a worker's own shards as whole arrays, and notes how long what came out had been under way."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from infrastructure.population.field import BATCH_TIMES, BUCKETS, Field
from infrastructure.population.kernel import Taken

__all__ = ["RingReader", "bucket_of", "percentile_us"]


Letters: TypeAlias = tuple[NDArray[np.uint64], NDArray[np.int64]]

_FEW_RINGS = 16


class RingReader:
    """Single consumer of all rings into the own shards of one worker."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._taken = field.pair_seen[field.own]
        self._own = field.own.tolist()
        self._few = len(self._own) * field.shards <= _FEW_RINGS
        # Of a few rings the counters are read one by one, which takes a tenth of what arrays of so few take.
        self._heads, self._tails = field.heads.data, field.tails.data
        self._batches, self._seen = field.pair_batch.data, field.pair_seen.data
        self._times, self._latencies = field.batch_times.data, field.latencies.data
        self._last: list[tuple[int, int, int]] = []

    def take(self) -> Taken:
        """All messages in them, copied out, the higher priority first."""
        found = self.take_lanes()
        if len(found) == 1:
            who, values = found[0]
            return who, values, np.zeros(who.size, np.uint8)
        return (
            np.concatenate([who for who, _ in found]),
            np.concatenate([values for _, values in found]),
            np.repeat(np.arange(len(found), dtype=np.uint8), [who.size for who, _ in found]),
        )

    def take_lanes(self) -> list[Letters]:
        """All messages in them by lane, copied out, the higher priority first."""
        field = self._field
        # Read before the heads, so that every message of these batches is among what is taken.
        if self._few:
            batches, sources = self._batches, range(field.shards)
            self._last = [(dest, source, batches[source, dest]) for dest in self._own for source in sources]
            return [self._take_few(lane) for lane in range(field.lanes)]
        self._taken = field.pair_batch[:, field.own].T.copy()
        return [self._take_lane(lane) for lane in range(field.lanes)]

    def _take_lane(self, lane: int) -> Letters:
        field, own = self._field, self._field.own
        heads = field.heads[lane][:, own].T.copy()
        tails = field.tails[lane][own]
        dest, source = np.nonzero(heads - tails)
        if not dest.size:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        first = ((lane * field.shards + source) * field.shards + own[dest]) * field.capacity
        found = self._picked(first, tails[dest, source], heads[dest, source])
        field.tails[lane][own] = heads
        return found

    def _take_few(self, lane: int) -> Letters:
        """Of a few rings, each of which is one piece, or two where it goes round."""
        field, capacity, shards = self._field, self._field.capacity, self._field.shards
        pieces, emptied = [], []
        for dest in self._own:
            for source in range(shards):
                tail, head = self._tails[lane, dest, source], self._heads[lane, source, dest]
                if tail == head:
                    continue
                ring = ((lane * shards + source) * shards + dest) * capacity
                start, stop = ring + tail % capacity, ring + head % capacity
                if start < stop:
                    pieces.append(slice(start, stop))
                else:
                    pieces += [slice(start, ring + capacity), slice(ring, stop)]
                emptied.append((dest, source, head))
        if not pieces:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        found = (
            np.concatenate([field.who[piece] for piece in pieces]),
            np.concatenate([field.values[piece] for piece in pieces]),
        )
        for dest, source, head in emptied:
            self._tails[lane, dest, source] = head
        return found

    def _picked(self, first: NDArray[np.int64], tails: NDArray[np.int64], heads: NDArray[np.int64]) -> Letters:
        """Of many rings, message by message."""
        field, amounts = self._field, heads - tails
        ends = np.cumsum(amounts)
        offsets = np.arange(int(ends[-1])) + np.repeat(tails - (ends - amounts), amounts)
        offsets &= field.capacity - 1
        offsets += np.repeat(first, amounts)
        return field.who.take(offsets), field.values.take(offsets)

    def tally(self, now: int) -> None:
        """Count the micro-batches that were taken last as delivered at `now`, in ns."""
        if self._few:
            self._tally_few(now)
            return
        field, own, batches = self._field, self._field.own, self._taken
        seen = field.pair_seen[own]
        amounts = np.minimum(batches - seen, BATCH_TIMES // 2)
        dest, source = np.nonzero(amounts)
        if not dest.size:
            return
        amount = amounts[dest, source]
        ends = np.cumsum(amount)
        number = np.arange(int(ends[-1])) + np.repeat(batches[dest, source] - ends + 1, amount)
        made = field.batch_times[np.repeat(source, amount), number % BATCH_TIMES]
        across = np.repeat(own[dest] != source, amount).astype(np.int64)
        places = across * BUCKETS + bucket_of(np.maximum(now - made, 1))
        field.latencies[field.worker] += np.bincount(places, minlength=2 * BUCKETS).reshape(2, BUCKETS)
        field.pair_seen[own] = batches

    def _tally_few(self, now: int) -> None:
        worker, seen, times, latencies = self._field.worker, self._seen, self._times, self._latencies
        for dest, source, last in self._last:
            for number in range(max(seen[dest, source], last - BATCH_TIMES // 2) + 1, last + 1):
                mantissa, exponent = math.frexp(max(now - times[source, number % BATCH_TIMES], 1))
                bucket = min(exponent * 8 + int((mantissa - 0.5) * 16), BUCKETS - 1)
                latencies[worker, int(dest != source), bucket] += 1
            seen[dest, source] = last


def bucket_of(nanoseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each duration, eight for each doubling."""
    mantissa, exponent = np.frexp(nanoseconds.astype(np.float64))
    return np.minimum((exponent.astype(np.int64) * 8) + ((mantissa - 0.5) * 16).astype(np.int64), BUCKETS - 1)


def percentile_us(buckets: NDArray[np.int64], share: float) -> float | None:
    """The duration in us that `share` of what is in the buckets does not exceed, None where they are empty."""
    total = int(buckets.sum())
    if not total:
        return None
    place = int(np.searchsorted(np.cumsum(buckets), share * total))
    exponent, eighth = divmod(min(place, BUCKETS - 1), 8)
    return float((0.5 + (eighth + 1) / 16) * 2.0**exponent / 1_000)
