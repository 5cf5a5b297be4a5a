"""The engine `local`: one population in the memory of this machine, stepped by threads or processes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.message_bus import MessageBus
from application.ports.population_engine import (
    Access,
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
from infrastructure.population.attachment import Attachment, Host
from infrastructure.population.balance import Move, move_for
from infrastructure.population.columns import Columns
from infrastructure.population.field import Behaviour, Count, layout_of
from infrastructure.population.founding import populate
from infrastructure.population.graphs import graph_of
from infrastructure.population.making import attachments_of, behaviour_of, chosen_kernel, make_worker
from infrastructure.population.memory_plan import plan_memory
from infrastructure.population.mover import Mover
from infrastructure.population.opinion_summary import summary_of
from infrastructure.population.process_team import ProcessTeam
from infrastructure.population.process_usage import cores, cpu_seconds, peak_rss_bytes, resident_bytes
from infrastructure.population.rings import percentile_us
from infrastructure.population.slab import Slab
from infrastructure.population.snapshot_writer import SnapshotWriter
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots
from infrastructure.population.thinking.minds import Minds
from infrastructure.population.thread_team import ThreadTeam
from infrastructure.population.tree import Tree
from infrastructure.population.worker_team import WorkerTeam

__all__ = ["LocalEngine", "batch_of", "shards_and_workers"]

# Ticks from one look at the balance to the next, and so long must they have taken to be worth it.
_BALANCE_TICKS = 64
_BALANCE_US = 50_000
# Columns that every tick changes, where they are there.
_EACH_TICK = ("opinion", "metrics", "peers")
# Below so many agents a tick is over before another process could begin.
_WORTH_A_PROCESS = 20_000


def batch_of(kernel: str) -> int:
    """Messages that are sent at a time: few enough to be delivered soon, enough to be worth a call of that kernel."""
    return 4_000 if kernel == "numba" else 5_000


def shards_and_workers(spec: PopulationSpecification) -> tuple[int, int]:
    """How many shards there are, one for each core unless told, and how many workers carry them: never more than cores."""
    shards = spec.shards or cores()
    return shards, min(shards, cores())


class LocalEngine:
    """See `PopulationEngine`."""

    def __init__(
        self,
        spec: PopulationSpecification,
        *,
        snapshots: Snapshots,
        tick: int = 0,
        cache: Path | None = None,
        folder: Path | None = None,
        minds: Minds | None = None,
        open_bus: Callable[[], MessageBus] | None = None,
    ) -> None:
        """Spawn all agents, put the snapshot of `tick` in their place where it is not 0, and start the workers.

        What is attached keeps its files in `folder`, and asks `minds` for opinions; others speak for rows over what `open_bus` opens.

        Raises `NotEnoughMemoryError` before it takes any, `EdgeFileError`, `InvalidPopulationError`, `DamagedRecordError`.
        """
        self._spec = spec
        self._snapshots = snapshots
        self._team: WorkerTeam | None = None
        self._writer = SnapshotWriter(snapshots)
        self._migrated = 0
        self._attached: list[Attachment] = []
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
        self._mover = Mover(self._columns, self._arena["block.sums"])
        self._tick = tick
        self._busy = np.zeros(workers)
        spawned = populate(self._arena, spec, graph, shards=shards)
        del graph
        known = Adjacency(self._arena["graph.offsets"], self._arena["graph.targets"]) if edges is not None else None
        self._facts = EngineFacts(
            engine="local",
            kernel=kernel,
            shards=shards,
            workers="processes" if apart else "threads",
            worker_count=workers,
            spawn_us_per_agent=spawned / spec.agents * 1e6,
        )
        # Columns beside the opinions change only where agents come and go, are commanded, and where a behaviour keeps bytes of its own.
        self._all_columns = behaviour_of(spec) is Behaviour.OWN or spec.rests
        self._tree = Tree(spec, behaviour_of(spec), self._arena, known)
        try:
            self._attached = attachments_of(
                Host(
                    spec,
                    self._columns,
                    self.slab,
                    known,
                    kernel,
                    folder,
                    self._mover,
                    minds,
                    open_bus,
                    self._arena["block.rest"] if spec.rests else None,
                )
            )
            if tick:
                self._restore(tick)
            else:
                self._tree.begin(0, {})
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
        self._tree.look_again()
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
        changed = [one.after_tick(number) for one in self._attached]
        moved = self._mover.take_moved()
        if any(changed):
            self.refresh()
        turned = self._tree.after_tick(number, changed=any(changed))
        if moved or turned:
            self._members.refresh(number)
        counts = self._arena["worker.counts"].sum(axis=0)
        fold = self._tree.fold()
        return TickOutcome(
            tick=number,
            sent=int(counts[Count.SENT]),
            delivered=int(counts[Count.DELIVERED]),
            expired=int(counts[Count.EXPIRED]),
            refused=int(counts[Count.REFUSED]),
            opinion_sum=fold.total,
            alive=self._columns.rows - int(self._columns.free_count[0]),
            coordination_s=fold.coordination_s,
            stale_regions=fold.stale,
        )

    def opinions(self) -> OpinionSummary:
        """See `PopulationEngine`."""
        return summary_of(self._columns, self._spec, self._tick)

    def state_hash(self) -> str:
        """See `PopulationEngine`."""
        return self._columns.state_hash(self._tick, beside=self._attached_columns())

    def save(self, tick: int) -> None:
        """See `PopulationEngine`."""
        self._writer.settle()
        kept: dict[str, NDArray[Any]] = {
            name: column.copy() for name, column in self._columns.at(tick) if self._all_columns or name in _EACH_TICK
        }
        kept |= {name: column.copy() for name, column in self._attached_columns()} | self._tree.kept()
        self._writer.write(tick, kept)

    def settle(self) -> None:
        """See `PopulationEngine`."""
        self._writer.settle()

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
            access=next((one.access for one in self._attached if one.access is not None), Access()),
            attached={"tree": self._tree.document()} | {one.name: dict(one.document()) for one in self._attached},
        )

    def close(self) -> None:
        """See `PopulationEngine`."""
        if self._team is not None:
            self._team.close()
            self._team = None
        for one in self._attached:
            one.close()
        self._attached = []
        self._writer.close()
        self._arena.close()

    @property
    def _members(self) -> WorkerTeam:
        if self._team is None:
            raise RuntimeError("the engine is closed")
        return self._team

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
        for one in self._attached:
            beginning = f"{one.name}."
            one.restore(
                {name[len(beginning) :]: kept for name, kept in found.items() if name.startswith(beginning)}, tick
            )
        self._all_columns = self._all_columns or "id" in found
        self._tree.begin(tick, found)

    def _attached_columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for one in self._attached:
            yield from ((f"{one.name}.{name}", column) for name, column in one.columns())

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
