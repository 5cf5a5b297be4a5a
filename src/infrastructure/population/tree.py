"""The tree over a population: folds go up it, commands go down it, and it says which localities the next tick may pass over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import LOCALITY, PopulationSpecification
from domain.models.population_tree import FAN_IN, TreeShape
from domain.models.run import JsonValue
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena
from infrastructure.population.columns import Columns, on_grid
from infrastructure.population.commanding import Commanding
from infrastructure.population.dormancy import Dormancy
from infrastructure.population.field import SILENT, STILL, Behaviour
from infrastructure.population.localities import Localities
from infrastructure.population.region_folds import RegionFolds
from infrastructure.population.slab import Slab
from infrastructure.population.tree_timing import timed
from infrastructure.population.turnover import Turnover

__all__ = ["Fold", "Tree"]

_logger = logging.getLogger(__name__)

# What the root's question and its answer may take together; regions that are not reached by then are stale.
_DEADLINE_S = 0.05
_ASLEEP, _COUNTS = "tree.asleep", "tree.counts"


@dataclass(frozen=True, slots=True)
class Fold:
    """What the root knows after a tick: the exact sum of all opinions, and the regions whose part of what it knows is old."""

    total: int
    stale: tuple[int, ...]
    coordination_s: float


@dataclass(slots=True)
class _Tally:
    """What was counted, also over a resumption; in this order in a snapshot."""

    localities_spawned: int = 0
    localities_retired: int = 0
    regions_spawned: int = 0
    regions_retired: int = 0
    evaluated: int = 0
    passed_over: int = 0
    moved: int = 0
    moved_by_others: int = 0
    arrived: int = 0
    departed: int = 0
    turned_away: int = 0


class Tree:
    """One coordinator over regions of a hundred localities of a hundred agents. No node of it has more than a hundred children.

    Each tick its localities' sums go up; with commands, turnover or dormancy it also says, between ticks, what the next one does.
    Whatever it decides depends on the columns, the specification and the tick alone.
    """

    def __init__(
        self,
        spec: PopulationSpecification,
        behaviour: Behaviour,
        arena: Arena,
        graph: Adjacency | None,
        *,
        folds: RegionFolds | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.shape = TreeShape.of(spec.agents)
        self._spec = spec
        self._columns = Columns.of(arena)
        self._localities = Localities(self._columns, arena["block.sums"])
        self._rest: NDArray[np.uint8] | None = arena["block.rest"] if spec.rests else None
        self._clock = clock
        self._turnover = Turnover(spec, self._columns, Slab(self._columns, spec))
        self._commanding = Commanding(spec, self._columns, self.shape)
        self._dormancy = Dormancy(spec, behaviour, self._columns, graph) if spec.dormancy else None
        # Where somebody else counts what is sent, everybody goes on sending.
        self._falls_silent = not (spec.metrics or spec.peers or spec.external)
        self._folds = folds or RegionFolds(self._columns, self.shape.regions, clock=clock)
        self._dirty = np.ones(self.shape.regions, np.bool_)
        self._last = np.zeros(self.shape.regions, np.int64)
        self._since: dict[int, tuple[int, str]] = {}
        self._named: set[int] = set()
        self._tally = _Tally()
        self._tick = 0
        self._ticks = 0
        self._commands_s = 0.0
        self._measured: tuple[int, dict[str, JsonValue]] = (-1, {})

    def begin(self, tick: int, found: Mapping[str, NDArray[Any]]) -> None:
        """Take over after `tick` what a snapshot holds of the tree, or begin at the beginning; before any worker looks."""
        self._tick = tick
        self._localities.count(self._localities.all)
        if self._rest is None:
            return
        if tick:
            # Who was passed over has the same in both buffers.
            self._columns.opinion[(tick + 1) % 2] = self._columns.opinion[tick % 2]
            self._commanding.remember(tick + 1)
            if self._dormancy is not None:
                self._dormancy.begin(found[_ASLEEP] == 1)
            self._tally = _Tally(*(int(number) for number in found[_COUNTS]))
            self._turnover.arrived, self._turnover.departed = self._tally.arrived, self._tally.departed
            self._turnover.turned_away = self._tally.turned_away
        else:
            self._command(0)
        self._localities.sum(self._localities.all, tick)
        self._lay_to_rest(tick)

    def kept(self) -> dict[str, NDArray[Any]]:
        """What a snapshot holds of it beside the columns; no part of `state_hash`."""
        if self._rest is None:
            return {}
        turnover, tally = self._turnover, self._tally
        tally.arrived, tally.departed, tally.turned_away = turnover.arrived, turnover.departed, turnover.turned_away
        found = {_COUNTS: np.array([getattr(tally, name) for name in _Tally.__slots__], np.int64)}
        if self._dormancy is not None:
            found[_ASLEEP] = self._dormancy.asleep.astype(np.uint8)
        return found

    def look_again(self) -> None:
        """Begin with the columns as they are, after agents came, went or were changed that it was not told of."""
        self._localities.count(self._localities.all)
        if self._dormancy is not None:
            self._dormancy.wake(np.ones(self._localities.sums.size, np.bool_))
        self._lay_to_rest(self._tick)

    def after_tick(self, tick: int, *, changed: bool) -> bool:
        """Let agents come and go after `tick`, say what is passed over in the next, and pass commands down.

        `changed`: rows were changed by somebody else. Returns whether workers have to look at the columns anew.
        """
        self._tick = tick
        self._ticks += 1
        if changed:
            self._localities.sum(self._localities.all, tick)
        if self._rest is None:
            self._dirty[:] = True
            return False
        touched = np.full(self._localities.sums.size, changed)
        turned = self._turn_over(tick, touched)
        self._follow(tick, touched)
        commanded = self._command(tick)
        self._lay_to_rest(tick)
        return turned or commanded

    def fold(self) -> Fold:
        """Have all regions say their sum to the root, and, where it is due, everything else they know."""
        began = self._clock()
        regions = np.add.reduceat(self._localities.sums, np.arange(0, self._localities.sums.size, FAN_IN))
        wrong = self._localities.wrong()
        if wrong.any() or self._since:
            broken = np.unique(np.flatnonzero(wrong) // FAN_IN)
            fresh = (self._tick - 1, "said a sum that its agents cannot have")
            self._since = {region: self._since.get(region, fresh) for region in broken.tolist()}
            regions[broken] = self._last[broken]
        self._last = regions
        total = regions
        while total.size > 1:
            total = np.add.reduceat(total, np.arange(0, total.size, FAN_IN))
        if self._spec.fold_ticks and self._tick % self._spec.fold_ticks == 0:
            self._ask(deadline_s=_DEADLINE_S)
        stale = sorted({*self._since, *self._folds.problems})
        for region in stale:
            if region not in self._named:
                _logger.warning("a region is stale", extra={"region": region, "tick": self._tick})
        self._named = set(stale)
        return Fold(int(total[0]), tuple(stale), self._clock() - began)

    def document(self) -> dict[str, JsonValue]:
        """What it is, what it did, and what it costs beside other ways to coordinate."""
        if not self._ticks:
            return dict(self.shape.document())
        if self._measured[0] != self._tick:
            self._ask(deadline_s=None)
            units = on_grid(np.nan_to_num(self._columns.opinion[self._tick % 2]))
            self._measured = (self._tick, timed(units, self.shape, self._clock))
        tally = self._tally
        stale = self._folds.stale()
        for region, (since, problem) in sorted(self._since.items()):
            stale.append({"region": region, "value_of_tick": since, "problem": problem})
        paused: list[JsonValue] = [*np.flatnonzero(self._commanding.paused).tolist()]
        found: dict[str, JsonValue] = {
            **self.shape.document(),
            "measured": self._measured[1],
            "opinions": self._folds.root(),
            "regions": {
                "all": self.shape.regions,
                "living": int(np.count_nonzero(self._localities.living_by_region)),
                "spawned": tally.regions_spawned,
                "retired": tally.regions_retired,
                "paused": paused,
                "stale": [*stale],
            },
            "localities": {
                "all": self._localities.sums.size,
                "living": int(np.count_nonzero(self._localities.living)),
                "spawned": tally.localities_spawned,
                "retired": tally.localities_retired,
            },
        }
        if self._spec.commands:
            found["commands"] = {
                "carried_out": self._commanding.carried_out,
                "messages": self._commanding.messages,
                "ms": self._commands_s * 1e3,
            }
        if self._spec.arrivals or self._spec.departures or self._spec.begin_with:
            found["turnover"] = {
                "arrived": self._turnover.arrived,
                "departed": self._turnover.departed,
                "turned_away": self._turnover.turned_away,
            }
        if self._dormancy is not None:
            found["dormancy"] = {
                "asleep": int(np.count_nonzero(self._dormancy.asleep)),
                "silent": int(np.count_nonzero(self._dormancy.silent)) if self._falls_silent else 0,
                # Localities times ticks: stepped because they were predicted to be dirty, and of these who were.
                "evaluated": tally.evaluated,
                "passed_over": tally.passed_over,
                "predicted_and_moved": tally.moved,
                "moved_by_others": tally.moved_by_others,
            }
        return found

    def _ask(self, *, deadline_s: float | None) -> None:
        self._folds.ask(self._tick, dirty=self._dirty, deadline_s=deadline_s)
        self._dirty[:] = False
        self._dirty[list(self._folds.problems)] = True

    def _turn_over(self, tick: int, touched: NDArray[np.bool_]) -> bool:
        if not (self._spec.arrivals or self._spec.departures):
            return False
        left, came = self._turnover.take(tick)
        self._commanding.welcome(came)
        localities = np.unique(np.concatenate([left, came.astype(np.int64)]) // LOCALITY)
        if not localities.size:
            return False
        touched[localities] = True
        places = self._localities
        before, regions = places.living > 0, places.living_by_region > 0
        places.count(localities)
        places.sum(localities, tick)
        after, regions_after = places.living > 0, places.living_by_region > 0
        tally = self._tally
        tally.localities_spawned += int(np.count_nonzero(after & ~before))
        tally.localities_retired += int(np.count_nonzero(before & ~after))
        tally.regions_spawned += int(np.count_nonzero(regions_after & ~regions))
        tally.regions_retired += int(np.count_nonzero(regions & ~regions_after))
        return True

    def _follow(self, tick: int, touched: NDArray[np.bool_]) -> None:
        dirty = np.ones(touched.size, np.bool_)
        if self._dormancy is not None:
            asleep = self._dormancy.asleep.copy()
            self._dormancy.follow(tick, touched)
            moved = self._dormancy.moved
            self._tally.evaluated += int(np.count_nonzero(~asleep))
            self._tally.passed_over += int(np.count_nonzero(asleep))
            self._tally.moved += int(np.count_nonzero(moved & ~asleep))
            self._tally.moved_by_others += int(np.count_nonzero(moved & asleep & ~touched))
            dirty = moved | touched
        self._dirty |= np.logical_or.reduceat(dirty, np.arange(0, dirty.size, FAN_IN))

    def _command(self, tick: int) -> bool:
        """Carry out what is to be done before the tick after `tick`."""
        began, due = self._clock(), self._commanding.due(tick + 1)
        for command in due:
            reached = self._commanding.carry_out(command)
            if self._dormancy is not None:
                self._dormancy.wake(reached)
        if due:
            self._commands_s += self._clock() - began
        return bool(due)

    def _lay_to_rest(self, tick: int) -> None:
        """Tell the workers which localities the next tick passes over."""
        if self._rest is None:
            return
        idle = self._localities.living == 0
        idle |= np.repeat(self._commanding.paused, FAN_IN)[: idle.size]
        rest = np.where(idle, STILL | SILENT, 0).astype(np.uint8)
        if self._dormancy is not None:
            rest[self._dormancy.asleep] |= STILL
            if self._falls_silent:
                rest[self._dormancy.silent] |= SILENT
        begun = (rest & STILL != 0) & (self._rest & STILL == 0)
        now, then = self._columns.opinion[tick % 2], self._columns.opinion[(tick + 1) % 2]
        for locality in np.flatnonzero(begun & idle).tolist():
            rows = slice(locality * LOCALITY, (locality + 1) * LOCALITY)
            then[rows] = now[rows]
        self._rest[:] = rest
