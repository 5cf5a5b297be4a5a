"""The engine `local`: one population in the memory of this machine, stepped by threads or processes of it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import (
    CommunitySummary,
    EngineFacts,
    EngineMeasures,
    Latency,
    OpinionSummary,
    TickOutcome,
)
from domain.errors.population import DamagedRecordError
from domain.models.population import LOCALITY, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena
from infrastructure.population.balance import Move, move_for
from infrastructure.population.columns import Columns
from infrastructure.population.field import Behaviour, Count, layout_of, shards_of_blocks
from infrastructure.population.graphs import graph_of
from infrastructure.population.making import behaviour_of, chosen_kernel, make_worker
from infrastructure.population.memory_plan import plan_memory
from infrastructure.population.process_team import ProcessTeam
from infrastructure.population.process_usage import cores, cpu_seconds, peak_rss_bytes, resident_bytes
from infrastructure.population.rings import percentile_us
from infrastructure.population.slab import Slab
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots
from infrastructure.population.thread_team import ThreadTeam
from infrastructure.population.worker_team import WorkerTeam

__all__ = ["LocalEngine", "batch_of", "shards_and_workers"]

_BINS = 100
# Ticks from one look at the balance to the next, and so long must they have taken to be worth it.
_BALANCE_TICKS = 64
_BALANCE_US = 50_000
_REGION = 100
# Below so many agents a tick is over before another process could begin.
_WORTH_A_PROCESS = 20_000


def batch_of(kernel: str) -> int:
    """Messages that are sent at a time: few enough to be delivered soon, enough to be worth a call of that kernel."""
    return 4_000 if kernel == "numba" else 10_000


def shards_and_workers(spec: PopulationSpecification) -> tuple[int, int]:
    """How many shards there are, one for each core unless told, and how many workers carry them: never more than cores."""
    shards = spec.shards or cores()
    return shards, min(shards, cores())


class LocalEngine:
    """See `PopulationEngine`."""

    def __init__(
        self, spec: PopulationSpecification, *, snapshots: Snapshots, tick: int = 0, cache: Path | None = None
    ) -> None:
        """Spawn all agents, put the snapshot of `tick` in their place where it is not 0, and start the workers.

        Raises `NotEnoughMemoryError` before it takes any, `EdgeFileError`, `InvalidPopulationError`, `DamagedRecordError`.
        """
        self._spec = spec
        self._snapshots = snapshots
        self._team: WorkerTeam | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._migrated = 0
        kernel = chosen_kernel(spec.kernel)
        batch = batch_of(kernel)
        shards, workers = shards_and_workers(spec)
        apart = _apart(spec, kernel, workers)
        plan_memory(spec, shards=shards, workers=workers, batch=batch).require()
        graph = graph_of(spec)
        edges = graph.targets.size if graph else None
        layout = layout_of(spec, shards=shards, workers=workers, batch=batch, edges=edges)
        self._arena = Arena(layout, shared=apart)
        self._columns = Columns.of(self._arena)
        self._tick = tick
        self._busy = np.zeros(workers)
        spawned = self._fill(graph, shards)
        del graph
        self._facts = EngineFacts(
            engine="local",
            kernel=kernel,
            shards=shards,
            workers="processes" if apart else "threads",
            worker_count=workers,
            spawn_us_per_agent=spawned / spec.agents * 1e6,
        )
        # Columns beside the opinions change only where agents come and go, and where a behaviour keeps bytes of its own.
        self._all_columns = behaviour_of(spec) is Behaviour.OWN
        try:
            if tick:
                self._restore(tick)
            plan = {"specification": spec.document(), "kernel": kernel, "batch": batch}
            if apart:
                self._team = ProcessTeam(self._arena, plan, workers, cache=cache)
            else:
                self._team = ThreadTeam(
                    lambda number: make_worker(
                        self._arena, spec, kernel=kernel, worker=number, workers=workers, batch=batch, cache=cache
                    ),
                    workers,
                    self._arena["worker.aborted"],
                )
            self._team.refresh(tick)
        except BaseException:
            self.close()
            raise
        self._peak = 0
        self._look_at_memory()

    @property
    def facts(self) -> EngineFacts:
        """See `PopulationEngine`."""
        return self._facts

    @property
    def ticks_taken(self) -> int:
        """The last tick that was taken."""
        return self._tick

    @property
    def processes(self) -> Sequence[int]:
        """The ids of the processes that carry shards beside this one."""
        return self._members.processes

    @property
    def columns(self) -> Columns:
        """The columns themselves, for whoever changes agents between ticks; `refresh` follows."""
        return self._columns

    @property
    def slab(self) -> Slab:
        """Spawns and retires agents between ticks; `refresh` follows."""
        return Slab(self._columns, self._spec)

    def refresh(self) -> None:
        """Let the workers see agents that came, went or were changed since the last tick."""
        self._all_columns = True
        self._members.refresh(self._tick)

    def migrate(self, move: Move) -> None:
        """Let another shard take some blocks over; nobody who sends to them notices."""
        self._arena["shard.of_block"][move.blocks] = move.shard
        self._migrated += move.blocks.size * LOCALITY
        self._members.relocate(self._tick)

    def tick(self, number: int) -> TickOutcome:
        """See `PopulationEngine`."""
        if number % _BALANCE_TICKS == 0:
            self._balance()
        self._members.tick(number)
        self._tick = number
        counts = self._arena["worker.counts"].sum(axis=0)
        began = time.perf_counter()
        # Localities to regions to the root, so that nobody sums more than a hundred.
        localities = self._arena["block.sums"]
        regions = np.add.reduceat(localities, np.arange(0, localities.size, _REGION))
        total = int(regions.sum())
        return TickOutcome(
            tick=number,
            sent=int(counts[Count.SENT]),
            delivered=int(counts[Count.DELIVERED]),
            expired=int(counts[Count.EXPIRED]),
            refused=int(counts[Count.REFUSED]),
            opinion_sum=total,
            alive=self._columns.rows - int(self._columns.free_count[0]),
            coordination_s=time.perf_counter() - began,
        )

    def opinions(self) -> OpinionSummary:
        """See `PopulationEngine`."""
        columns = self._columns
        opinions, kinds = columns.opinion[self._tick % 2], columns.type
        if columns.free_count[0]:
            living = columns.alive == 1
            opinions, kinds = opinions[living], kinds[living]
        histogram, _ = np.histogram(opinions, bins=_BINS, range=(0.0, 1.0))
        return OpinionSummary(
            mean=float(opinions.mean()) if opinions.size else 0.0,
            variance=float(opinions.var()) if opinions.size else 0.0,
            histogram=[int(count) for count in histogram],
            communities=[
                CommunitySummary(
                    name=archetype.name,
                    answer=archetype.answer,
                    agents=own.size,
                    mean=float(own.mean()) if own.size else 0.0,
                    variance=float(own.var()) if own.size else 0.0,
                )
                for kind, archetype in enumerate(self._spec.archetypes, 1)
                for own in (opinions[kinds == kind],)
            ],
        )

    def state_hash(self) -> str:
        """See `PopulationEngine`."""
        return self._columns.state_hash(self._tick)

    def save(self, tick: int) -> None:
        """See `PopulationEngine`."""
        self.settle()
        kept: dict[str, NDArray[Any]] = {
            name: column.copy() for name, column in self._columns.at(tick) if self._all_columns or name == "opinion"
        }
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing = self._writer.submit(self._snapshots.write, tick, kept)

    def settle(self) -> None:
        """See `PopulationEngine`."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def measures(self) -> EngineMeasures:
        """See `PopulationEngine`."""
        self._look_at_memory()
        same, cross = (
            Latency(percentile_us(buckets, 0.5), percentile_us(buckets, 0.99))
            for buckets in self._arena["worker.latencies"].sum(axis=0)
        )
        return EngineMeasures(
            same_shard=same,
            cross_shard=cross,
            peak_rss_bytes=self._peak,
            cpu_s=cpu_seconds(self._team.processes if self._team else ()),
            migrated_agents=self._migrated,
        )

    def close(self) -> None:
        """See `PopulationEngine`."""
        if self._team is not None:
            self._team.close()
            self._team = None
        if self._writer is not None:
            self._writer.shutdown()
            self._writer = None
        self._arena.close()

    @property
    def _members(self) -> WorkerTeam:
        if self._team is None:
            raise RuntimeError("the engine is closed")
        return self._team

    def _fill(self, graph: Adjacency | None, shards: int) -> float:
        """Put the graph and the agents in; seconds that the agents took."""
        if graph is not None:
            self._arena["graph.offsets"][:] = graph.offsets
            self._arena["graph.targets"][:] = graph.targets
        self._arena["shard.of_block"][:] = shards_of_blocks(self._spec, shards)
        began = time.perf_counter()
        self.slab.open()
        self.slab.spawn(self._spec.agents)
        if self._spec.archetypes:
            self.slab.seed()
        return time.perf_counter() - began

    def _restore(self, tick: int) -> None:
        try:
            found = self._snapshots.read(tick)
            self._take_over(found, tick)
        except (DamagedSnapshotError, KeyError, ValueError) as error:
            good = self._snapshots.last_good(one for one in self._snapshots.ticks() if one < tick)
            raise DamagedRecordError(
                path=str(self._snapshots.path(tick)), problem=str(error), last_good_tick=good
            ) from error

    def _take_over(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:
        for name, column in self._columns.at(tick):
            if name in found:
                column[:] = found[name]
        self._all_columns = self._all_columns or len(found) > 1

    def _balance(self) -> None:
        busy = self._arena["worker.counts"][:, Count.BUSY].astype(np.float64)
        since, self._busy = busy - self._busy, busy
        if since.size < 2 or since.max() < _BALANCE_US:
            return
        move = move_for(self._arena["shard.of_block"], since, shards=self._facts.shards)
        if move is not None:
            self.migrate(move)

    def _look_at_memory(self) -> None:
        others = self._team.processes if self._team else ()
        if not others:
            self._peak = peak_rss_bytes()
            return
        self._peak = max(self._peak, resident_bytes([os.getpid(), *others]))


def _apart(spec: PopulationSpecification, kernel: str, workers: int) -> bool:
    """Whether the workers are processes: numpy holds the interpreter's lock for half of its work, the compiled loops never do."""
    if spec.workers == "auto":
        return kernel == "numpy" and workers > 1 and spec.agents >= _WORTH_A_PROCESS
    return spec.workers == "processes"
