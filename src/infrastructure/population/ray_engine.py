"""The engine `ray`: one actor for each group of shards, on as many machines as the cluster has. The only importer of ray."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import EngineFacts, EngineMeasures, Latency, OpinionSummary, TickOutcome
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import BehaviourError, DamagedRecordError, ShardLostError
from domain.models.population import PopulationSpecification
from infrastructure.population.arena import Arena
from infrastructure.population.columns import Columns
from infrastructure.population.field import Behaviour, Count, layout_of
from infrastructure.population.founding import populate
from infrastructure.population.graphs import graph_of
from infrastructure.population.making import behaviour_of, chosen_kernel
from infrastructure.population.opinion_summary import summary_of
from infrastructure.population.process_usage import cpu_seconds, resident_bytes
from infrastructure.population.rings import percentile_us
from infrastructure.population.shard_group import GroupTick, GroupUsage, ShardGroup, is_read_by_neighbours
from infrastructure.population.snapshot_writer import SnapshotWriter
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots

__all__ = ["RayEngine"]

_REGION = 100
# Actors of a cluster that is busy with something else may never come.
_START_S = 120.0
_ANSWER_S = 5.0


class RayEngine:
    """See `PopulationEngine`. Joins the cluster that RAY_ADDRESS names, and else starts one of this machine for as long as it lives.

    All that is in the columns of one actor is in no other's; this process has a copy for snapshots, as old as the last one.
    """

    def __init__(
        self,
        spec: PopulationSpecification,
        *,
        snapshots: Snapshots,
        batch: int,
        tick: int = 0,
        cache: Path | None = None,
    ) -> None:
        """Start the actors and have them begin after `tick`.

        Raises `DependencyUnavailableError` where the cluster or its actors do not come, `EdgeFileError`, `DamagedRecordError`.
        """
        self._spec = spec
        self._snapshots = snapshots
        self._writer = SnapshotWriter(snapshots)
        self._tick = tick
        self._actors: list[Any] = []
        self._opinions: list[Any] = []
        self._known_rows: list[NDArray[np.uint32]] = []
        self._usage: list[GroupUsage] = []
        self._peak = 0
        self._started = False
        kernel = chosen_kernel(spec.kernel)
        kept = self._kept(tick)
        self._ray = _joined()
        self._started = not _is_given()
        try:
            cores = int(self._ray.cluster_resources().get("CPU", 1))
            shards = spec.shards or cores
            groups = max(1, min(shards, cores))
            graph = graph_of(spec)
            layout = layout_of(spec, shards=shards, workers=1, batch=batch, edges=graph.targets.size if graph else None)
            arena = Arena(layout, shared=False, sparse=True)
            spawned = populate(arena, spec, graph, shards=shards)
            self._columns = Columns.of(arena)
            self._localities = np.zeros(spec.localities, np.int64)
            plan = {"kernel": kernel, "batch": batch, "shards": shards, "groups": groups, "tick": tick}
            self._start(plan, kept, cache)
        except BaseException:
            self.close()
            raise
        self._facts = EngineFacts(
            engine="ray",
            kernel=kernel,
            shards=shards,
            workers="actors",
            worker_count=groups,
            spawn_us_per_agent=spawned / spec.agents * 1e6,
        )
        self._all_columns = behaviour_of(spec) is Behaviour.OWN
        if kept:
            self._take_over(kept)
        self._look()

    @property
    def facts(self) -> EngineFacts:
        """See `PopulationEngine`."""
        return self._facts

    @property
    def processes(self) -> Sequence[int]:
        """The ids of the actors' processes, each on its own machine."""
        found: list[int] = self._fetch([actor.process.remote() for actor in self._actors])
        return found

    def tick(self, number: int) -> TickOutcome:
        """See `PopulationEngine`."""
        groups = len(self._actors)
        known = self._opinions if is_read_by_neighbours(self._spec) else []
        posts = []
        for group, actor in enumerate(self._actors):
            others = [opinions for other, opinions in enumerate(known) if other != group]
            found = actor.send.options(num_returns=groups).remote(number, *others)
            posts.append(found if groups > 1 else [found])
        ended = [
            actor.finish.options(num_returns=2).remote(
                *[posts[source][group] for source in range(groups) if source != group]
            )
            for group, actor in enumerate(self._actors)
        ]
        ticks: list[GroupTick] = self._fetch([one for one, _ in ended])
        self._opinions = [opinions for _, opinions in ended]
        for one in ticks:
            if one.failure is not None:
                raise BehaviourError(**one.failure)
        self._tick = number
        began = time.perf_counter()
        for one in ticks:
            self._localities[one.blocks] = one.sums
        regions = np.add.reduceat(self._localities, np.arange(0, self._localities.size, _REGION))
        total = int(regions.sum())
        counts = np.sum([one.counts for one in ticks], axis=0)
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
        self._gather(["opinion"])
        return summary_of(self._columns, self._spec, self._tick)

    def state_hash(self) -> str:
        """See `PopulationEngine`."""
        self._gather(self._changing)
        return self._columns.state_hash(self._tick)

    def save(self, tick: int) -> None:
        """See `PopulationEngine`."""
        self._gather(self._changing)
        self._writer.settle()
        changing = self._changing
        self._writer.write(tick, {name: column.copy() for name, column in self._columns.at(tick) if name in changing})

    def settle(self) -> None:
        """See `PopulationEngine`."""
        self._writer.settle()

    def measures(self) -> EngineMeasures:
        """See `PopulationEngine`."""
        self._look()
        histograms = np.sum([usage.latencies for usage in self._usage], axis=0)
        same, cross = (Latency(percentile_us(one, 0.5), percentile_us(one, 0.99)) for one in histograms)
        return EngineMeasures(
            same_shard=same,
            cross_shard=cross,
            peak_rss_bytes=self._peak,
            cpu_s=cpu_seconds() + sum(usage.cpu_s for usage in self._usage),
        )

    def close(self) -> None:
        """See `PopulationEngine`."""
        actors, self._actors = self._actors, []
        for actor in actors:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)
        self._writer.close()
        if self._started:
            self._started = False
            self._ray.shutdown()

    @property
    def _changing(self) -> Sequence[str]:
        """Columns that ticks change: all, where a behaviour keeps bytes of its own."""
        return ["opinion", "state"] if self._all_columns else ["opinion"]

    def _start(self, plan: dict[str, Any], kept: dict[str, NDArray[Any]] | None, cache: Path | None) -> None:
        made = self._ray.remote(ShardGroup)
        document = self._ray.put(self._spec.document())
        columns = self._ray.put(kept) if kept else None
        self._actors = [
            made.options(
                num_cpus=1,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                # Where this process found its packages, an actor on this machine finds them too.
                runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}},
            ).remote(document, **plan, group=group, kept=columns, cache=str(cache) if cache else None)
            for group in range(plan["groups"])
        ]
        self._fetch([actor.process.remote() for actor in self._actors], timeout_s=_START_S)

    def _kept(self, tick: int) -> dict[str, NDArray[Any]] | None:
        if not tick:
            return None
        try:
            return self._snapshots.read(tick)
        except DamagedSnapshotError as error:
            good = self._snapshots.last_good(one for one in self._snapshots.ticks() if one < tick)
            raise DamagedRecordError(
                path=str(self._snapshots.path(tick)), problem=str(error), last_good_tick=good
            ) from error

    def _take_over(self, kept: dict[str, NDArray[Any]]) -> None:
        for name, column in self._columns.at(self._tick):
            if name in kept:
                column[:] = kept[name]
        self._all_columns = self._all_columns or len(kept) > 1

    def _gather(self, names: Sequence[str]) -> None:
        """Have in the columns here what the actors have in theirs."""
        targets = dict(self._columns.at(self._tick))
        for rows, found in self._fetch([actor.columns.remote(self._tick, names) for actor in self._actors]):
            for name, values in found.items():
                targets[name][rows] = values

    def _look(self) -> None:
        if self._actors:
            self._usage = self._fetch([actor.usage.remote() for actor in self._actors])
        here = resident_bytes([os.getpid()])
        self._peak = max(self._peak, here + sum(usage.resident_bytes for usage in self._usage))

    def _fetch(self, references: Sequence[Any], *, timeout_s: float | None = None) -> Any:
        """What they stand for. Raises `ShardLostError` where an actor is gone, `DependencyUnavailableError` where none came."""
        errors = self._ray.exceptions
        found = []
        for group, reference in enumerate(references):
            try:
                found.append(self._ray.get(reference, timeout=timeout_s))
            except errors.GetTimeoutError as error:
                raise DependencyUnavailableError(
                    dependency="the Ray cluster",
                    problem=f"it gave no place to shard group {group} within {timeout_s:g} s",
                    remedy="Free cores there, or take fewer --shards.",
                ) from error
            except (errors.RayActorError, errors.ObjectLostError) as error:
                raise ShardLostError(worker=group, problem="has lost its actor") from error
            except errors.RayTaskError as error:
                if isinstance(error.cause, errors.RayActorError | errors.ObjectLostError):
                    raise ShardLostError(worker=group, problem="has lost the actor it hears from") from error
                raise
        return found


def _is_given() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def _joined() -> Any:
    """Ray itself, once this process is connected to a cluster. Called beside the main thread, whose signals it would take over."""
    # Asked once, at import: nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        try:
            _require_answer(os.environ.get("RAY_ADDRESS", ""))
            ray.init(include_dashboard=None if _is_given() else False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise DependencyUnavailableError(
                dependency="the Ray cluster",
                problem=str(error).splitlines()[0] if str(error) else type(error).__name__,
                remedy="Check RAY_ADDRESS, or leave it unset to use this machine alone.",
            ) from error
    return ray


def _require_answer(address: str) -> None:
    """Raise `OSError` where nobody listens at a HOST:PORT, which Ray itself would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
