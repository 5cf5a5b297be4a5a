"""The engine `torch`: the tick as tensor operations, on a CUDA device where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from application.ports.population_engine import EngineFacts, EngineMeasures, Latency, OpinionSummary, TickOutcome
from domain.errors.deliberation import FieldProblem
from domain.errors.population import DamagedRecordError, InvalidPopulationError
from domain.models.population import ADOPTED, GRID, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena
from infrastructure.population.columns import Columns
from infrastructure.population.field import Behaviour, TickKeys, layout_of
from infrastructure.population.founding import populate
from infrastructure.population.graphs import graph_of
from infrastructure.population.making import behaviour_of
from infrastructure.population.opinion_summary import summary_of
from infrastructure.population.process_usage import cpu_seconds, peak_rss_bytes
from infrastructure.population.randomness import FIRST, GOLDEN, SECOND, STRIDE, Pairing
from infrastructure.population.snapshot_writer import SnapshotWriter
from infrastructure.population.snapshots import DamagedSnapshotError, Snapshots
from infrastructure.population.torch_device import torch_and_device

__all__ = ["TorchEngine"]

_UNIT = 2.0**-53
_NEVER = 2**63 - 1


class TorchEngine:
    """See `PopulationEngine`. All arithmetic on opinions is whole or that of IEEE 754 doubles in one order: columns are bit-equal to those
    of the other engines. Messages are gathered and scattered at once, so that there are no shards, and no times of delivery.
    """

    def __init__(self, spec: PopulationSpecification, *, snapshots: Snapshots, tick: int = 0) -> None:
        """Put all agents on the device, with the snapshot of `tick` where it is not 0.

        Raises `EdgeFileError`, `DamagedRecordError`, and `InvalidPopulationError` for a behaviour that is no built-in one.
        """
        behaviour = behaviour_of(spec)
        if behaviour is Behaviour.OWN:
            raise InvalidPopulationError([FieldProblem("/behaviour", "must be a built-in one with the engine 'torch'")])
        self._torch, device = torch_and_device()
        self._spec = spec
        self._behaviour = behaviour
        self._tick = tick
        self._device = self._torch.device(device)
        self._writer = SnapshotWriter(snapshots)
        graph = graph_of(spec)
        layout = layout_of(spec, shards=1, workers=1, batch=1, edges=graph.targets.size if graph else None)
        arena = Arena(layout, shared=False, sparse=True)
        spawned = populate(arena, spec, graph, shards=1)
        self._columns = Columns.of(arena)
        self._opinion: Any = None
        if tick:
            self._restore(snapshots, tick)
        self._move(graph)
        self._facts = EngineFacts(
            engine="torch",
            kernel="torch",
            shards=1,
            workers=device,
            worker_count=1 if device == "cuda" else self._torch.get_num_threads(),
            spawn_us_per_agent=spawned / spec.agents * 1e6,
        )

    @property
    def facts(self) -> EngineFacts:
        """See `PopulationEngine`."""
        return self._facts

    def tick(self, number: int) -> TickOutcome:
        """See `PopulationEngine`."""
        torch = self._torch
        keys = TickKeys.of(self._spec, number)
        first, second = self._empty()
        sent = 0
        for message in range(self._spec.messages):
            rows, targets = self._addressed(keys, message)
            sent += int(rows.numel())
            values = self._opinion[rows]
            if self._behaviour is Behaviour.VOTER:
                self._vote(keys, rows, targets, values, first, second)
            elif self._hears:
                self._fold(targets, values, first, second)
        if not self._hears:
            first, second = self._known()
        self._opinion = self._next(keys, first, second)
        self._tick = number
        began = time.perf_counter()
        total = int(torch.sum(self._opinion))
        return TickOutcome(
            tick=number,
            sent=sent,
            delivered=sent,
            expired=0,
            refused=0,
            opinion_sum=total,
            alive=self._spec.agents,
            coordination_s=time.perf_counter() - began,
        )

    def opinions(self) -> OpinionSummary:
        """See `PopulationEngine`."""
        self._gather()
        return summary_of(self._columns, self._spec, self._tick)

    def state_hash(self) -> str:
        """See `PopulationEngine`."""
        self._gather()
        return self._columns.state_hash(self._tick)

    def save(self, tick: int) -> None:
        """See `PopulationEngine`."""
        self._gather()
        self._writer.settle()
        self._writer.write(tick, {"opinion": dict(self._columns.at(tick))["opinion"].copy()})

    def settle(self) -> None:
        """See `PopulationEngine`."""
        self._writer.settle()

    def measures(self) -> EngineMeasures:
        """See `PopulationEngine`."""
        return EngineMeasures(
            same_shard=Latency(), cross_shard=Latency(), peak_rss_bytes=peak_rss_bytes(), cpu_s=cpu_seconds()
        )

    def close(self) -> None:
        """See `PopulationEngine`."""
        self._writer.close()

    @property
    def _hears(self) -> bool:
        """Whether messages move anybody, and not what neighbours think."""
        by_message = {Behaviour.BOUNDED_CONFIDENCE, Behaviour.VOTER}
        return self._graph is None or self._behaviour in by_message

    def _move(self, graph: Adjacency | None) -> None:
        """Put on the device what ticks read."""
        columns, device, torch = self._columns, self._device, self._torch

        def moved(array: Any) -> Any:
            return torch.from_numpy(array).to(device)

        self._ids = moved(columns.id.view("int64").copy())
        self._rows = torch.arange(columns.rows, device=device)
        self._opinion = moved((columns.opinion[self._tick % 2] * GRID).astype("int64"))
        self._bound = moved((columns.bound * GRID).astype("int64"))
        self._share_needed = moved(columns.bound.copy())
        self._susceptibility = moved(columns.susceptibility.copy())
        self._activity = None if bool((columns.activity >= 1.0).all()) else moved(columns.activity.copy())
        self._graph: tuple[Any, Any, Any] | None = None
        if graph is not None:
            offsets = moved(graph.offsets)
            self._graph = (offsets[:-1], offsets[1:] - offsets[:-1], moved(graph.targets.astype("int64")))

    def _addressed(self, keys: TickKeys, message: int) -> tuple[Any, Any]:
        """Who speaks in this tick, and to whom."""
        rows = self._rows
        if self._activity is not None:
            chance = self._uniform(keys.activity, self._ids)
            rows = rows[chance < self._activity]
        if self._graph is None:
            return rows, self._partners(keys.pairings[message], rows)
        first, degree, targets = self._graph
        lonely = degree[rows] == 0
        rows = rows[~lonely]
        counters = self._ids[rows] + _signed(message * STRIDE)
        chosen = (_shifted(self._draw(keys.recipient, counters), 32) * degree[rows]) >> 32
        return rows, targets[first[rows] + chosen]

    def _empty(self) -> tuple[Any, Any]:
        torch, rows = self._torch, self._spec.agents
        start = _NEVER if self._behaviour is Behaviour.VOTER else 0
        first = torch.full((rows,), start, dtype=torch.int64, device=self._device)
        return first, torch.zeros(rows, dtype=torch.int64, device=self._device)

    def _vote(self, keys: TickKeys, rows: Any, targets: Any, values: Any, first: Any, second: Any) -> None:
        """Keep of all that an agent heard what comes with the least number."""
        chance = _shifted(self._draw(keys.choice, (targets << 32) | rows), 1)
        first.scatter_reduce_(0, targets, chance, "amin")
        chosen = first[targets] == chance
        second[targets[chosen]] = values[chosen]

    def _fold(self, targets: Any, values: Any, first: Any, second: Any) -> None:
        """Add what was heard to sums and counts: whole numbers, in any order."""
        if self._behaviour is Behaviour.BOUNDED_CONFIDENCE:
            near = (self._opinion[targets] - values).abs() <= self._bound[targets]
            targets, values = targets[near], values[near]
        elif self._behaviour is Behaviour.THRESHOLD:
            values = (values >= int(ADOPTED * GRID)).to(self._torch.int64)
        first.index_add_(0, targets, values)
        second.index_add_(0, targets, self._torch.ones_like(values))

    def _known(self) -> tuple[Any, Any]:
        """Sums and counts of what neighbours think."""
        if self._graph is None:
            raise RuntimeError("without a graph nobody has neighbours")
        _, degree, targets = self._graph
        heard = self._opinion[targets]
        if self._behaviour is Behaviour.THRESHOLD:
            heard = (heard.to(self._torch.float64) * (1.0 / GRID) >= ADOPTED).to(self._torch.int64)
        sums = self._torch.zeros(self._spec.agents, dtype=self._torch.int64, device=self._device)
        return sums.index_add_(0, self._torch.repeat_interleave(self._rows, degree), heard), degree

    def _next(self, keys: TickKeys, total: Any, count: Any) -> Any:
        torch, present = self._torch, self._opinion
        if self._behaviour is Behaviour.VOTER:
            adopts = (total != _NEVER) & (self._uniform(keys.adoption, self._ids) < self._susceptibility)
            return torch.where(adopts, count, present)
        if self._behaviour is Behaviour.THRESHOLD:
            enough = (count > 0) & (total.to(torch.float64) >= self._share_needed * count.to(torch.float64))
            return torch.where(enough, torch.full_like(present, GRID), present)
        way = (total - count * present).to(torch.float64) / count.clamp(min=1).to(torch.float64)
        return present + torch.round(way * self._susceptibility).to(torch.int64)

    def _draw(self, key: int, counters: Any) -> Any:
        """As `randomness.draw`, in words with a sign, whose bits are the same."""
        words = counters * _signed(GOLDEN) + _signed(key)
        words = (words ^ _shifted(words, 30)) * _signed(FIRST)
        words = (words ^ _shifted(words, 27)) * _signed(SECOND)
        return words ^ _shifted(words, 31)

    def _uniform(self, key: int, counters: Any) -> Any:
        return _shifted(self._draw(key, counters), 11).to(self._torch.float64) * _UNIT

    def _partners(self, pairing: Pairing, rows: Any) -> Any:
        places = self._walked(pairing, rows, _forth) ^ 1
        alone = places >= pairing.size
        return self._walked(pairing, self._torch.where(alone, places ^ 1, places), _back)

    def _walked(self, pairing: Pairing, words: Any, step: Callable[[Pairing, Any], Any]) -> Any:
        found = step(pairing, words)
        while bool((beyond := found >= pairing.size).any()):
            found = self._torch.where(beyond, step(pairing, found), found)
        return found

    def _gather(self) -> None:
        """Have in the columns here what is on the device."""
        self._columns.opinion[self._tick % 2][:] = self._opinion.cpu().numpy() * (1.0 / GRID)

    def _restore(self, snapshots: Snapshots, tick: int) -> None:
        try:
            dict(self._columns.at(tick))["opinion"][:] = snapshots.read(tick)["opinion"]
        except (DamagedSnapshotError, KeyError, ValueError) as error:
            good = snapshots.last_good(one for one in snapshots.ticks() if one < tick)
            raise DamagedRecordError(path=str(snapshots.path(tick)), problem=str(error), last_good_tick=good) from error


def _signed(word: int) -> int:
    """The number whose bits, with a sign, are those of an unsigned word."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word


def _shifted(words: Any, bits: int) -> Any:
    """To the right, with zeros from the left."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _forth(pairing: Pairing, words: Any) -> Any:
    for factor, term in zip(pairing.factors.tolist(), pairing.terms.tolist(), strict=True):
        words = (words * factor + term) & pairing.mask
        words = words ^ (words >> pairing.shift)
    return words


def _back(pairing: Pairing, words: Any) -> Any:
    for factor, term in zip(pairing.inverses[::-1].tolist(), pairing.terms[::-1].tolist(), strict=True):
        words = words ^ (words >> pairing.shift)
        words = ((words - term) * factor) & pairing.mask
    return words
