"""The states of a population in tiers: each tick some agents, the popular ones most, look into their states and write them anew."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import Access
from domain.errors.population import DamagedRecordError
from domain.models.run import JsonValue
from infrastructure.population.attachment import Host
from infrastructure.population.columns import on_grid
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots
from infrastructure.population.tiers.access_times import AccessTimes
from infrastructure.population.tiers.hit_rates import rehearsed, uniform_hit_rate
from infrastructure.population.tiers.opening import MOST_WAITING, open_stores, slots_of
from infrastructure.population.tiers.persistence_queue import PersistenceQueue
from infrastructure.population.tiers.popularity import EXPONENT, Popularity
from infrastructure.population.tiers.records import noted
from infrastructure.population.tiers.tiered_states import Tier, TieredStates

__all__ = ["VISITED_PERCENT", "StateTiers"]

VISITED_PERCENT = 1
"""So many draws are made a tick, in percent of the agents; who is drawn several times is visited once, and so often counted."""

_AT_ONCE = 128
# States of each tier that are read one at a time and timed, of each batch; and how many of each make a percentile.
_TIMED = 2
_ENOUGH = 1_000


class StateTiers:
    """See `Attachment`. What the states are depends on the specification and the tick alone; where they lie, on what was asked for."""

    name = "tiers"

    def __init__(self, host: Host) -> None:
        """Take the memory of the tiers, and decide by a rehearsal of the draws who begins where. Raises as `open_stores` does."""
        spec = host.spec
        self._spec = spec
        self._columns = host.columns
        self._closing = ExitStack()
        try:
            folder = host.folder
            self._snapshots = None if folder is None else Snapshots(folder / "snapshots")
            if folder is None:
                # A population that keeps no files cannot be resumed, but its states are no fewer.
                folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="conclave-states-")))
            self._folder = folder
            self._stores = open_stores(spec, folder, self._closing)
            self._queue = PersistenceQueue(self._stores.cold, most=MOST_WAITING)
            self._closing.callback(self._queue.close)
            self.states = TieredStates(self._stores, rows=spec.agents, queue=self._queue)
            self._popularity = Popularity(agents=spec.agents, seed=spec.seed)
            self._places = rehearsed(self._popularity, agents=spec.agents, slots=slots_of(spec))
        except BaseException:
            self._closing.close()
            raise
        self._begun = False
        self._tick = 0
        self._times = {tier: AccessTimes() for tier in (Tier.HOT, Tier.WARM, Tier.COLD)}
        self._visits = np.zeros(len(Tier), np.int64)
        self._uniform: float | None = None

    def after_tick(self, tick: int) -> bool:
        """See `Attachment`. Raises `PopulationFolderError`, `DamagedRecordError` and `DependencyUnavailableError`."""
        self._begin()
        self._tick = tick
        draws = max(1, self._spec.agents * VISITED_PERCENT // 100)
        ranks, visits = np.unique(self._popularity.ranks(tick, draws), return_counts=True)
        rows = self._popularity.rows(ranks)
        living = self._columns.alive[rows] == 1
        rows, visits = rows[living], visits[living]
        at_once = min(_AT_ONCE, self.states.most_at_once)
        with self._queue.peak():
            for start in range(0, rows.size, at_once):
                part = slice(start, start + at_once)
                self._visit(rows[part], visits[part], tick)
        return False

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """See `Attachment`: the version and the checksum of each state, which stands in the cold tier when they are given out."""
        self._begin()
        self.states.settle()
        self._keep(self._tick)
        self._stores.cold.sync()
        yield "version", self.states.version
        yield "digest", self.states.digest

    def restore(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:
        """See `Attachment`. Raises `DamagedRecordError` where the cold tier has not got what was written until then."""
        if self._snapshots is None:
            raise ValueError("the states of this population were kept nowhere")
        version, digest = found["version"], found["digest"]
        hot, _ = self._places
        # Nothing is warm: that would be said of states that are cold.
        self.states.place(hot, None, self._popularity.rows)
        try:
            self.states.take_over(version, digest)
        except DamagedRecordError as error:
            raise DamagedRecordError(
                path=error.path, problem=error.problem, last_good_tick=self._last_good(self._snapshots, tick)
            ) from error
        self._stores.cold.rewind(tick)
        self._begun, self._tick = True, tick
        self._keep(tick)

    @property
    def access(self) -> Access:
        """See `Attachment`. What was not reached often enough in the ticks is read once more here, one state at a time."""
        visits = int(self._visits.sum())
        if not visits:
            return Access()
        if self._uniform is None:
            self._uniform = uniform_hit_rate(
                agents=self._spec.agents, slots=slots_of(self._spec)[0], seed=self._spec.seed
            )
        with self._queue.peak():
            for tier, times in self._times.items():
                if times.count < _ENOUGH:
                    self._read_from(tier, _ENOUGH - times.count)
        hot, warm, cold = (self._times[tier].latency() for tier in (Tier.HOT, Tier.WARM, Tier.COLD))
        return Access(hot, warm, cold, int(self._visits[Tier.HOT]) / visits, self._uniform)

    def document(self) -> Mapping[str, JsonValue]:
        """See `Attachment`."""
        hot, warm = slots_of(self._spec)
        persisted = self._queue.times.latency()
        return {
            "hot_agents": hot,
            "warm_agents": warm,
            "warm": self._spec.warm,
            "cold": self._spec.cold,
            "zipf_exponent": EXPONENT,
            "visits": int(self._visits.sum()),
            "visits_by_tier": {tier.name.lower(): int(self._visits[tier]) for tier in Tier},
            "written_agents": int(np.count_nonzero(self.states.version)),
            "persisted": self._queue.written,
            "persist_ms": {
                "p50": None if persisted.p50 is None else persisted.p50 / 1_000,
                "p99": None if persisted.p99 is None else persisted.p99 / 1_000,
            },
            "waits_for_the_cold_tier": self._queue.waits,
            "waited_s": self._queue.waited_s,
            "cold_bytes": sum(path.stat().st_size for path in self._folder.rglob("states.*") if path.is_file())
            + sum(path.stat().st_size for path in self._folder.glob("states.lmdb/*")),
        }

    def close(self) -> None:
        """See `Attachment`."""
        self._closing.close()

    def _begin(self) -> None:
        """Empty the cold tier, unless it was taken over; not sooner, since what lies there may be resumed from."""
        if self._begun:
            return
        self._stores.cold.begin()
        self.states.place(*self._places, self._popularity.rows)
        self._begun = True

    def _visit(self, rows: NDArray[np.int64], visits: NDArray[np.int64], tick: int) -> None:
        tiers = self.states.tiers_of(rows)
        # Who was not hot is so from the first of its visits on.
        first = np.bincount(tiers, minlength=len(Tier))
        first[Tier.HOT] += int(visits.sum()) - rows.size
        self._visits += first
        for tier, times in self._times.items():
            self._time(rows[tiers == tier][:_TIMED], times)
        columns = self._columns
        ids, opinions = columns.id[rows], on_grid(columns.opinion[tick % 2][rows])
        self.states.change(
            rows, lambda words: noted(words, ids=ids, visits=visits, opinions=opinions, tick=tick), tick=tick
        )

    def _time(self, rows: NDArray[np.int64], times: AccessTimes) -> None:
        clock, read = time.perf_counter, self.states.read
        for row in rows.tolist():
            began = clock()
            read(row)
            times.add(np.full(1, clock() - began))

    def _read_from(self, tier: Tier, count: int) -> None:
        """Read so many states, which were written in this run, one at a time where they lie in that tier."""
        states = self.states
        written = np.flatnonzero(states.version)
        hot = written[states.hot.places.place_of[written] >= 0]
        step = max(1, hot.size // count)
        rows = hot[::step][:count]
        states.settle()
        at_once = min(_AT_ONCE, states.most_at_once)
        for start in range(0, rows.size, at_once):
            part = rows[start : start + at_once]
            if tier is not Tier.HOT:
                states.cool(part, tier)
            self._time(part[states.tiers_of(part) == tier], self._times[tier])

    def _keep(self, tick: int) -> None:
        """Tell the cold tier which ticks may be gone back to."""
        kept = self._snapshots.ticks() if self._snapshots is not None else []
        self._stores.cold.keep(sorted({*(one for one in kept if one <= tick), tick}))
        self._queue.untidy()

    def _last_good(self, snapshots: Snapshots, tick: int) -> int:
        """The last snapshot before `tick` whose states are all there, 0 where there is none."""
        for earlier in reversed([one for one in snapshots.ticks() if one < tick]):
            try:
                found = snapshots.read(earlier)
                self.states.take_over(found[f"{self.name}.version"], found[f"{self.name}.digest"])
            except (DamagedRecordError, DamagedSnapshotError, KeyError, ValueError):
                continue
            return earlier
        return 0
