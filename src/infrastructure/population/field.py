"""What one worker sees of a population: the shared arrays, the rows of its shards, and the rings between all shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.columns import Columns, add_columns
from infrastructure.population.randomness import Pairing, Purpose, draw, key_of, pairing_of

__all__ = [
    "BATCH_TIMES",
    "BUCKETS",
    "COUNT_BITS",
    "SILENT",
    "STILL",
    "Behaviour",
    "Count",
    "Field",
    "TickKeys",
    "layout_of",
    "ring_capacity",
    "rows_of",
]

BATCH_TIMES = 1_024
"""How many micro-batches of one shard are remembered with the time they were made at."""

BUCKETS = 512
"""Buckets of a latency histogram, eight for each doubling of a nanosecond."""

COUNT_BITS = 12
"""Bits of a word that count what was heard, below the sum of it; 39 bits of opinion and twice these are 63."""

STILL, SILENT = 1, 2
"""Of a community block at rest: nobody in it is stepped; nobody in it is sent for."""

_RINGS_IN_FLIGHT = 4
_SMALLEST_RING = 16
_RING_MESSAGES = 1 << 22


class Behaviour(IntEnum):
    """What agents do with what they hear, as the kernels know it; OWN is that of a user."""

    BOUNDED_CONFIDENCE = 0
    DEGROOT = 1
    VOTER = 2
    THRESHOLD = 3
    OWN = 4


class Count(IntEnum):
    """What each worker counts in one tick."""

    SENT = 0
    DELIVERED = 1
    EXPIRED = 2
    REFUSED = 3
    EMITTED = 4
    # Microseconds of processor time that it worked in all ticks, not counting what it waited.
    BUSY = 5


@dataclass(frozen=True, slots=True)
class TickKeys:
    """The random numbers of one tick."""

    tick: int
    recipient: int
    activity: int
    adoption: int
    choice: int
    own: int
    # One for each message of an agent, where partners are fresh each tick.
    pairings: Sequence[Pairing]

    @classmethod
    def of(cls, spec: PopulationSpecification, tick: int) -> TickKeys:
        """Those of that tick."""
        fresh = spec.graph == "mixed"
        return cls(
            tick=tick,
            recipient=key_of(spec.seed, tick, Purpose.RECIPIENT),
            activity=key_of(spec.seed, tick, Purpose.ACTIVITY),
            adoption=key_of(spec.seed, tick, Purpose.ADOPTION),
            choice=key_of(spec.seed, tick, Purpose.CHOICE),
            own=key_of(spec.seed, tick, Purpose.OWN),
            pairings=[
                pairing_of(key_of(spec.seed, tick, Purpose.PAIRING, message), spec.agents)
                for message in range(spec.messages if fresh else 0)
            ],
        )


@dataclass(frozen=True, slots=True)
class Field:
    """Shared arrays and one worker's part in them. Shards are numbered; `own` are those of this worker, `rows` their agents."""

    spec: PopulationSpecification
    behaviour: Behaviour
    columns: Columns
    graph: Adjacency | None
    # Which shard each community block belongs to.
    block_shard: NDArray[np.uint16]
    # The exact sum of the opinions of each community block after the last tick.
    block_sums: NDArray[np.int64]
    # Which community blocks are at rest, None where none ever is.
    block_rest: NDArray[np.uint8] | None
    own: NDArray[np.int64]
    rows: NDArray[np.uint32]
    # Where in `rows` the agents of each own shard begin, and where the last ones end.
    starts: NDArray[np.int64]
    # Rings: what was ever put in, by lane, source and destination; what was ever taken out, by lane, destination and source.
    heads: NDArray[np.int64]
    tails: NDArray[np.int64]
    who: NDArray[np.uint64]
    values: NDArray[np.int64]
    capacity: int
    # When each of the last micro-batches of a shard was made, in ns, and which of them each ring holds or has given out.
    batch_times: NDArray[np.int64]
    pair_batch: NDArray[np.int64]
    pair_seen: NDArray[np.int64]
    # Of each worker: its counts, and histograms of delivery in the same shard and across.
    counts: NDArray[np.int64]
    latencies: NDArray[np.int64]
    aborted: NDArray[np.int64]
    worker: int

    @classmethod
    def of(
        cls, arena: Arena, spec: PopulationSpecification, behaviour: Behaviour, *, worker: int, workers: int
    ) -> Field:
        """What worker number `worker` of `workers` sees of that arena; shard s is that of worker s % workers."""
        heads = arena["ring.heads"]
        own = np.arange(worker, heads.shape[1], workers, dtype=np.int64)
        rows, starts = rows_of(arena["shard.of_block"], own, spec.agents)
        graph = Adjacency(arena["graph.offsets"], arena["graph.targets"]) if "graph.offsets" in arena else None
        return cls(
            spec=spec,
            behaviour=behaviour,
            columns=Columns.of(arena),
            graph=graph,
            block_shard=arena["shard.of_block"],
            block_sums=arena["block.sums"],
            block_rest=arena["block.rest"] if spec.rests else None,
            own=own,
            rows=rows,
            starts=starts,
            heads=heads,
            tails=arena["ring.tails"],
            who=arena["ring.who"],
            values=arena["ring.values"],
            capacity=arena["ring.who"].size // heads.size,
            batch_times=arena["batch.times"],
            pair_batch=arena["batch.of_pair"],
            pair_seen=arena["batch.seen"],
            counts=arena["worker.counts"],
            latencies=arena["worker.latencies"],
            aborted=arena["worker.aborted"],
            worker=worker,
        )

    @property
    def shards(self) -> int:
        """Of all workers."""
        return int(self.heads.shape[1])

    @property
    def lanes(self) -> int:
        """One for each priority that is in use."""
        return int(self.heads.shape[0])

    @property
    def packs(self) -> bool:
        """Whether nobody can hear more in a tick than a word with sum and count has room for."""
        loudest = self.graph.most_heard if self.graph else 1
        return loudest * self.spec.messages < 1 << COUNT_BITS and self.behaviour is not Behaviour.VOTER

    @property
    def has_free_rows(self) -> bool:
        """Whether any agent may have retired."""
        return bool(self.columns.free_count[0])


def layout_of(spec: PopulationSpecification, *, shards: int, workers: int, batch: int, edges: int | None) -> Layout:
    """Room for everything that is shared. `edges` counts the neighbours of all agents, None without a graph."""
    layout = Layout()
    add_columns(layout, spec)
    if edges is not None:
        layout.add("graph.offsets", np.int64, spec.agents + 1)
        layout.add("graph.targets", np.uint32, edges)
    lanes = 3 if spec.high_priority or spec.low_priority else 1
    rings = lanes * shards * shards
    capacity = ring_capacity(shards, batch, rings=rings, messages=spec.agents * spec.messages)
    layout.add("shard.of_block", np.uint16, spec.localities)
    layout.add("block.sums", np.int64, spec.localities)
    if spec.rests:
        layout.add("block.rest", np.uint8, spec.localities)
    layout.add("ring.heads", np.int64, lanes, shards, shards)
    layout.add("ring.tails", np.int64, lanes, shards, shards)
    layout.add("ring.who", np.uint64, rings * capacity)
    layout.add("ring.values", np.int64, rings * capacity)
    layout.add("batch.times", np.int64, shards, BATCH_TIMES)
    layout.add("batch.of_pair", np.int64, shards, shards)
    layout.add("batch.seen", np.int64, shards, shards)
    layout.add("worker.counts", np.int64, workers, 8)
    layout.add("worker.latencies", np.int64, workers, 2, BUCKETS)
    layout.add("worker.aborted", np.int64, 1)
    return layout


def ring_capacity(shards: int, batch: int, *, rings: int, messages: int) -> int:
    """Messages that one ring holds, a power of two: a few micro-batches, so that they stay in the processor's cache.

    No more than all `messages` of a tick, and no more than what all rings together may take, but 16 at least.
    """
    wanted = max(_SMALLEST_RING, min(_RINGS_IN_FLIGHT * batch // shards, messages))
    most = max(_SMALLEST_RING, _RING_MESSAGES // rings)
    return int(min(1 << (wanted - 1).bit_length(), 1 << (most.bit_length() - 1)))


def shards_of_blocks(spec: PopulationSpecification, shards: int) -> NDArray[np.uint16]:
    """The shard of each community block, by a hash of the block."""
    draws = draw(key_of(spec.seed, 0, Purpose.SHARD), np.arange(spec.localities, dtype=np.uint64))
    return ((draws >> np.uint64(32)) * np.uint64(shards) >> np.uint64(32)).astype(np.uint16)


def rows_of(
    block_shard: NDArray[np.uint16], own: NDArray[np.int64], agents: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The rows of the shards `own`, shard by shard and in agent order, and where each shard begins among them."""
    parts: list[NDArray[np.uint32]] = []
    starts = np.zeros(own.size + 1, np.int64)
    for place, shard in enumerate(own):
        blocks = np.flatnonzero(block_shard == shard)
        rows = (blocks[:, None] * LOCALITY + np.arange(LOCALITY)).reshape(-1)
        parts.append(rows[rows < agents].astype(np.uint32))
        starts[place + 1] = starts[place] + parts[-1].size
    empty: list[NDArray[Any]] = [np.zeros(0, np.uint32)]
    return np.concatenate(parts or empty), starts
