"""Some shards of a population on a machine of their own: what is for other groups is handed over once a tick, as whole arrays."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import BehaviourError
from domain.models.population import LOCALITY, PopulationSpecification
from infrastructure.population.arena import Arena
from infrastructure.population.columns import Columns
from infrastructure.population.field import BUCKETS, Behaviour, Count, Field, layout_of
from infrastructure.population.founding import populate
from infrastructure.population.graphs import graph_of
from infrastructure.population.making import behaviour_of, make_worker
from infrastructure.population.process_usage import resident_bytes
from infrastructure.population.rings import RingReader, bucket_of

__all__ = ["GroupTick", "GroupUsage", "Letters", "Post", "ShardGroup", "is_read_by_neighbours"]

Letters = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Words with recipient and sender, and the opinions sent."""

_32 = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Post:
    """Messages from one group to another by priority, and when (system time, ns) the first of them was taken from its ring."""

    lanes: Sequence[Letters]
    taken_at: int


@dataclass(frozen=True, slots=True)
class GroupTick:
    """What a tick came to in one group: its counts, its community blocks and their sums; or how a behaviour failed."""

    counts: NDArray[np.int64]
    blocks: NDArray[np.int64]
    sums: NDArray[np.int64]
    failure: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """Memory and processor time of the group's process, and its histograms of delivery, own shard and across."""

    resident_bytes: int
    cpu_s: float
    latencies: NDArray[np.int64]


def is_read_by_neighbours(spec: PopulationSpecification) -> bool:
    """Whether a step reads opinions of agents in other groups, so that all groups must have them."""
    reading = {Behaviour.DEGROOT, Behaviour.THRESHOLD, Behaviour.OWN}
    return spec.graph != "mixed" and behaviour_of(spec) in reading


class ShardGroup:
    """Group number `group` of `groups`: shards group, group + groups and so on, each tick in two calls, `send` and `finish`.

    It has the columns of all agents but for their states, of which it has those of its own shards alone.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        kernel: str,
        batch: int,
        shards: int,
        group: int,
        groups: int,
        tick: int = 0,
        kept: Mapping[str, NDArray[Any]] | None = None,
        cache: str | None = None,
    ) -> None:
        """Begin at the first tick, or with the columns `kept` after `tick`."""
        spec = PopulationSpecification.from_document(document)
        self._group, self._groups = group, groups
        graph = graph_of(spec)
        edges = graph.targets.size if graph else None
        layout = layout_of(spec, shards=shards, workers=groups, batch=batch, edges=edges)
        self._arena = Arena(layout, shared=False, sparse=True)
        populate(self._arena, spec, graph, shards=shards)
        self._columns = Columns.of(self._arena)
        for name, column in self._columns.at(tick):
            if kept is not None and name in kept:
                column[:] = kept[name]
        self._field = Field.of(self._arena, spec, behaviour_of(spec), worker=group, workers=groups)
        self._rows = self._field.rows
        self._abroad = np.array([shard for shard in range(shards) if shard % groups != group], np.int64)
        self._exporter = RingReader(replace(self._field, own=self._abroad)) if self._abroad.size else None
        self._outgoing: list[tuple[int, list[Letters]]] = []
        self._worker = make_worker(
            self._arena,
            spec,
            kernel=kernel,
            worker=group,
            workers=groups,
            batch=batch,
            cache=Path(cache) if cache else None,
            beside=self._export if self._abroad.size else None,
        )
        self._worker.refresh(tick)

    def process(self) -> int:
        """The id of the process that it lives in."""
        return os.getpid()

    def send(self, tick: int, *opinions: tuple[NDArray[np.uint32], NDArray[np.float64]]) -> tuple[Post | None, ...]:
        """Send the messages of `tick`, once the opinions of others are known; what is for each group, None for its own."""
        for rows, found in opinions:
            self._columns.opinion[(tick - 1) % 2][rows] = found
        self._worker.send(tick)
        while self._worker.receive():
            pass
        outgoing, self._outgoing = self._outgoing, []
        return tuple(None if to == self._group else self._post(to, outgoing) for to in range(self._groups))

    def finish(self, *posts: Post) -> tuple[GroupTick, tuple[NDArray[np.uint32], NDArray[np.float64]]]:
        """Take what others sent in this tick and step; what it came to, and the own rows with their opinions."""
        for post in posts:
            self._deliver(post)
        failure: dict[str, Any] | None = None
        try:
            self._worker.step()
        except BehaviourError as error:
            failure = {name: getattr(error, name) for name in ("behaviour", "shard", "agent", "tick", "problem")}
        field = self._field
        mine = np.isin(field.block_shard, field.own)
        blocks = np.flatnonzero(mine)
        counts = field.counts[self._group].copy()
        tick = int(counts[Count.EMITTED])
        return (
            GroupTick(counts, blocks, field.block_sums[blocks], failure),
            (self._rows, self._columns.opinion[tick % 2][self._rows]),
        )

    def columns(self, tick: int, names: Sequence[str]) -> tuple[NDArray[np.uint32], dict[str, NDArray[Any]]]:
        """The own rows, and what these columns hold in them after `tick`."""
        found = {name: column[self._rows] for name, column in self._columns.at(tick) if name in names}
        return self._rows, found

    def usage(self) -> GroupUsage:
        """What its process has taken."""
        return GroupUsage(
            resident_bytes([os.getpid()]), time.process_time(), self._arena["worker.latencies"][self._group].copy()
        )

    def _export(self) -> None:
        """Take what was put into rings that lead to other groups."""
        if self._exporter is None:
            return
        lanes = self._exporter.take_lanes()
        if any(who.size for who, _ in lanes):
            self._outgoing.append((time.time_ns(), lanes))

    def _post(self, to: int, outgoing: Iterable[tuple[int, list[Letters]]]) -> Post:
        taken_at, lanes = 0, []
        pieces: list[list[Letters]] = [[] for _ in range(self._field.lanes)]
        for at, found in outgoing:
            taken_at = taken_at or at
            for lane, (who, values) in enumerate(found):
                its = self._shards_of(who) % self._groups == to
                pieces[lane].append((who[its], values[its]))
        for parts in pieces:
            who = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.uint64)
            values = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
            lanes.append((who, values))
        return Post(lanes, taken_at)

    def _deliver(self, post: Post) -> None:
        """Put messages of another group into the rings of the own shards, as many at a time as there is room for."""
        amount = 0
        for lane, (who, values) in enumerate(post.lanes):
            amount += who.size
            shards = self._shards_of(who)
            queues = [(int(shard), np.flatnonzero(shards == shard)) for shard in self._field.own]
            while queues := [(shard, places) for shard, places in queues if places.size]:
                rest = []
                for shard, places in queues:
                    room = self._field.capacity
                    self._put(lane, shard, who[places[:room]], values[places[:room]])
                    rest.append((shard, places[room:]))
                queues = rest
                self._worker.receive()
        if amount:
            # In histograms batches are counted, not messages; clocks of machines are as good as their owners keep them.
            late = np.array([max(1, time.time_ns() - post.taken_at)], np.int64)
            self._field.latencies[self._group, 1] += np.bincount(bucket_of(late), minlength=BUCKETS)

    def _put(self, lane: int, shard: int, who: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        """Behind the head of a ring that none of the own shards sends into."""
        field, source = self._field, int(self._abroad[0])
        head = int(field.heads[lane, source, shard])
        first = ((lane * field.shards + source) * field.shards + shard) * field.capacity
        slots = first + ((head + np.arange(who.size)) & (field.capacity - 1))
        field.who[slots] = who
        field.values[slots] = values
        field.heads[lane, source, shard] = head + who.size

    def _shards_of(self, who: NDArray[np.uint64]) -> NDArray[np.uint16]:
        return self._field.block_shard[(who >> _32).astype(np.int64) // LOCALITY]
