"""The loops of a tick, compiled by numba; they hold no interpreter's lock. Imported only when that kernel is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from domain.models.population import ADOPTED, GRID, LOCALITY
from infrastructure.population.field import BATCH_TIMES, BUCKETS, COUNT_BITS, Behaviour
from infrastructure.population.randomness import GOLDEN, STRIDE

__all__ = ["AHEAD", "begin_heard", "drain", "emit", "step", "tally"]

_config: Any = numba.config

_GOLDEN = np.uint64(GOLDEN)
_STRIDE = np.uint64(STRIDE)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_1, _11, _27, _30, _31, _32 = (np.uint64(number) for number in (1, 11, 27, 30, 31, 32))
_UNIT = 2.0**-53
_GRID = float(GRID)
_STEP = 1.0 / GRID
_ADOPTED = int(ADOPTED * GRID)
_NEVER = np.int64(2**63 - 1)
AHEAD = 128
"""Messages whose recipients are fetched from memory together; so long is the scratch of `drain`."""

_LOCALITY = np.uint32(LOCALITY)
_NONE = np.uint32(0)
_COUNT_MASK = (1 << COUNT_BITS) - 1
_BOUNDED, _DEGROOT, _VOTER, _THRESHOLD = (
    int(kind) for kind in (Behaviour.BOUNDED_CONFIDENCE, Behaviour.DEGROOT, Behaviour.VOTER, Behaviour.THRESHOLD)
)


def _compiled(loop: Callable[..., Any]) -> Any:
    """Kept between runs where a folder for it was named, since compiling takes seconds."""
    return numba.njit(nogil=True, cache=bool(_config.CACHE_DIR))(loop)


@_compiled
def _draw(key, counter):  # type: ignore[no-untyped-def]
    word = key + counter * _GOLDEN
    word = (word ^ (word >> _30)) * _FIRST
    word = (word ^ (word >> _27)) * _SECOND
    return word ^ (word >> _31)


@_compiled
def _partner(number, size, mask, shift, factors, inverses, terms):  # type: ignore[no-untyped-def]
    place = number
    while True:
        for turn in range(factors.size):
            place = (place * factors[turn] + terms[turn]) & mask
            place ^= place >> shift
        if place < size:
            break
    place ^= _1
    if place >= size:
        return number
    while True:
        for turn in range(factors.size - 1, -1, -1):
            place ^= place >> shift
            place = ((place - terms[turn]) * inverses[turn]) & mask
        if place < size:
            return place


@_compiled
def emit(  # type: ignore[no-untyped-def]
    source, start, stop, rows, messages, key, activity_key, everyone, whole, numbered, degree, ids, alive, activity, priority,
    now, offsets, targets, size, mask, shift, factors, inverses, terms, block_shard, heads, tails, capacity, who, values, position,
):  # fmt: skip
    """See `Kernel.emit`. One pass of a counting sort: the rings are its buckets, and their heads its running counts.

    `whole`: nobody has retired; `numbered`: every row has its own number as its id; `degree`: that of all, or -1. Each spares
    a column that would be read from memory. Rows are unsigned, so that no index is asked whether it counts from the end.
    """
    lanes, shards = heads.shape[0], heads.shape[1]
    for number in range(lanes):
        for shard in range(shards):
            position[number, shard] = heads[number, source, shard]
    fill = np.uint64(capacity - 1)
    sent = 0
    for place in range(start, stop):
        row = rows[place // messages] if messages > 1 else rows[place]
        if not whole and not alive[row]:
            continue
        agent = np.uint64(row) if numbered else ids[row]
        if not everyone and np.float64(_draw(activity_key, agent) >> _11) * _UNIT >= activity[row]:
            continue
        message = np.uint64(place % messages) if messages > 1 else np.uint64(0)
        if offsets.size:
            known = np.uint64(degree) if degree >= 0 else np.uint64(offsets[row + 1] - offsets[row])
            if known == np.uint64(0):
                continue
            first = np.uint64(row) * known if degree >= 0 else np.uint64(offsets[row])
            chosen = ((_draw(key, agent + message * _STRIDE) >> _32) * known) >> _32
            target = targets[first + chosen]
        else:
            target = np.uint32(
                _partner(np.uint64(row), size, mask, shift, factors[message], inverses[message], terms[message])
            )
        dest = np.uint32(block_shard[target // _LOCALITY]) if shards > 1 else np.uint32(0)
        lane = np.uint32(priority[row]) if lanes > 1 else np.uint32(0)
        head = position[lane, dest]
        if head - tails[lane, dest, source] >= capacity:
            return place, sent
        ring = np.uint64((np.int64(lane) * shards + source) * shards + np.int64(dest))
        slot = ring * np.uint64(capacity) + (np.uint64(head) & fill)
        who[slot] = (np.uint64(target) << _32) | np.uint64(row)
        values[slot] = np.int64(now[row] * _GRID)
        position[lane, dest] = head + 1
        sent += 1
    return stop, sent


@_compiled
def drain(  # type: ignore[no-untyped-def]
    kind, packed, bound, own, heads, tails, capacity, who, values, alive, whole, heard, bounds, choice_key, pair_batch, taken,
    counts, presents,
):  # fmt: skip
    """See `Kernel.drain`. What a row has heard lies in one line of the cache: its opinion, then sum and count in one word where
    they are `packed`, else in two; for `voter` the least chance drawn and the opinion that came with it. `bound` is that of
    all, or -1. Nothing depends on a condition that no processor could guess.
    """
    lanes, shards = heads.shape[0], heads.shape[1]
    fill = np.uint64(capacity - 1)
    moved = 0
    expired = 0
    for place in range(own.size):
        for source in range(shards):
            taken[place, source] = pair_batch[source, own[place]]
    for lane in range(lanes):
        for place in range(own.size):
            dest = own[place]
            for source in range(shards):
                tail = tails[lane, dest, source]
                head = heads[lane, source, dest]
                if tail == head:
                    continue
                first = np.uint64(((lane * shards + source) * shards + dest) * capacity)
                for begin in range(tail, head, AHEAD):
                    end = min(head, begin + AHEAD)
                    # Fetched for many messages at once, so that one does not wait for the memory of the other.
                    for number in range(begin, end):
                        slot = first + (np.uint64(number) & fill)
                        presents[number - begin] = heard[np.uint32(who[slot] >> _32), 0]
                    for number in range(begin, end):
                        slot = first + (np.uint64(number) & fill)
                        row = np.uint32(who[slot] >> _32)
                        if not whole and not alive[row]:
                            expired += 1
                            continue
                        value = values[slot]
                        if kind == _VOTER:
                            chance = np.int64(_draw(choice_key, who[slot]) >> _1)
                            if chance < heard[row, 0]:
                                heard[row, 0] = chance
                                heard[row, 1] = value
                            continue
                        if kind == _BOUNDED:
                            reach = bound if bound >= 0 else np.int64(bounds[row] * _GRID)
                            counted = np.int64(abs(value - presents[number - begin]) <= reach)
                        else:
                            counted = np.int64(1)
                            if kind == _THRESHOLD:
                                value = np.int64(value >= _ADOPTED)
                        if packed:
                            heard[row, 1] += ((value << COUNT_BITS) + 1) * counted
                        else:
                            heard[row, 1] += value * counted
                            heard[row, 2] += counted
                tails[lane, dest, source] = head
                moved += head - tail
    counts[1] += moved - expired
    counts[2] += expired
    return moved


@_compiled
def tally(now, own, taken, pair_seen, batch_times, latencies):  # type: ignore[no-untyped-def]
    """See `RingReader.tally`."""
    for place in range(own.size):
        dest = own[place]
        for source in range(taken.shape[1]):
            last = taken[place, source]
            for number in range(max(pair_seen[dest, source], last - BATCH_TIMES // 2), last):
                waited = max(np.float64(now - batch_times[source, (number + 1) % BATCH_TIMES]), 1.0)
                exponent = np.int64(np.ceil(np.log2(waited + 0.5)))
                eighth = np.int64((waited / 2.0**exponent - 0.5) * 16.0)
                bucket = min(exponent * 8 + eighth, BUCKETS - 1)
                latencies[np.int64(dest != source), bucket] += 1
            pair_seen[dest, source] = last


@_compiled
def begin_heard(kind, rows, now, heard):  # type: ignore[no-untyped-def]
    """Nothing heard yet by these rows, which hold the opinions `now`."""
    for place in range(rows.size):
        row = rows[place]
        heard[row, 0] = _NEVER if kind == _VOTER else np.int64(now[row] * _GRID)
        heard[row, 1] = 0
        if heard.shape[1] > 2:
            heard[row, 2] = 0


@_compiled
def step(  # type: ignore[no-untyped-def]
    kind, packed, share, start, stop, rows, heard, now, then, whole, alive, ids, bounds, susceptibility, adoption_key, offsets,
    targets, block_sums,
):  # fmt: skip
    """See `Kernel.step`; `share` is the susceptibility of all, or -1.

    A way is multiplied and then rounded by itself, so that no machine fuses it with the addition.
    """
    for place in range(start, stop):
        row = rows[place]
        block = row // _LOCALITY
        if row % _LOCALITY == _NONE:
            block_sums[block] = 0
        present = np.int64(now[row] * _GRID) if kind == _VOTER else heard[row, 0]
        found = present
        if whole or alive[row]:
            part = share if share >= 0.0 else susceptibility[row]
            if kind == _VOTER:
                if heard[row, 0] != _NEVER and np.float64(_draw(adoption_key, ids[row]) >> _11) * _UNIT < part:
                    found = heard[row, 1]
            else:
                total = heard[row, 1] >> COUNT_BITS if packed else heard[row, 1]
                count = heard[row, 1] & _COUNT_MASK if packed else heard[row, 2]
                if kind != _BOUNDED and offsets.size:
                    count = offsets[row + 1] - offsets[row]
                    total = np.int64(0)
                    for edge in range(offsets[row], offsets[row + 1]):
                        if kind == _DEGROOT:
                            total += np.int64(now[targets[edge]] * _GRID)
                        else:
                            total += np.int64(now[targets[edge]] >= ADOPTED)
                if count:
                    if kind != _THRESHOLD:
                        found = present + np.int64(np.rint(part * ((total - count * present) / count)))
                    elif np.float64(total) >= bounds[row] * count:
                        found = np.int64(GRID)
            block_sums[block] += found
        then[row] = found * _STEP
        heard[row, 0] = _NEVER if kind == _VOTER else found
        heard[row, 1] = 0
        if not packed and kind != _VOTER:
            heard[row, 2] = 0
