"""The port to what carries a population: where its rows lie, who steps them, and what a tick of them came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from domain.models.run import JsonValue

__all__ = [
    "Access",
    "CommunitySummary",
    "EngineFacts",
    "EngineMeasures",
    "Latency",
    "OpinionSummary",
    "PopulationEngine",
    "TickOutcome",
]


@dataclass(frozen=True, slots=True)
class TickOutcome:
    """What one tick did: messages counted at both ends, and the exact sum of all opinions in units of 1 / GRID."""

    tick: int
    sent: int
    delivered: int
    expired: int
    refused: int
    opinion_sum: int
    alive: int
    coordination_s: float
    # Those parts of the population whose last fold failed, and whose value before it stands in `opinion_sum`.
    stale_regions: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class CommunitySummary:
    """The opinions of those who began in the community of one archetype."""

    name: str
    answer: str
    agents: int
    mean: float
    variance: float


@dataclass(frozen=True, slots=True)
class OpinionSummary:
    """All opinions at one moment; `histogram` has 100 bins over 0-1. `communities` are those of a deliberation's agents."""

    mean: float
    variance: float
    histogram: Sequence[int]
    communities: Sequence[CommunitySummary] = ()

    def document(self) -> dict[str, JsonValue]:
        """As in the report."""
        found: dict[str, JsonValue] = {
            "mean": self.mean,
            "variance": self.variance,
            "histogram": list(self.histogram),
        }
        if self.communities:
            found["communities"] = [asdict(community) for community in self.communities]
        return found


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None

    def document(self) -> dict[str, JsonValue]:
        """As in the report."""
        return {"p50": self.p50, "p99": self.p99}


@dataclass(frozen=True, slots=True)
class Access:
    """How fast the states of agents are reached in their tiers, and how often they are found in the hot one, 0 to 1."""

    hot: Latency = Latency()
    warm: Latency = Latency()
    cold: Latency = Latency()
    hot_hits_zipf: float | None = None
    hot_hits_uniform: float | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known once the engine is open."""

    engine: str
    kernel: str
    shards: int
    workers: str
    worker_count: int
    spawn_us_per_agent: float


@dataclass(frozen=True, slots=True)
class EngineMeasures:
    """What was measured so far. `cpu_s` is processor time of all its processes, `peak_rss_bytes` counts shared pages once."""

    same_shard: Latency
    cross_shard: Latency
    peak_rss_bytes: int
    cpu_s: float
    # Agents that went to another shard, so that all workers take as long.
    migrated_agents: int = 0
    access: Access = field(default_factory=Access)
    # By name: what is attached to the population, and what it says of itself.
    attached: Mapping[str, JsonValue] = field(default_factory=dict)


class PopulationEngine(Protocol):
    """Steps one population; all calls but `close` are made one after the other, from any thread.

    The columns after a tick depend on the specification alone, never on shards, workers, kernel or engine.
    """

    @property
    def facts(self) -> EngineFacts:
        """What carries the population."""
        ...

    def tick(self, number: int) -> TickOutcome:
        """Take tick `number`, which follows the last one. Raises `BehaviourError`, `MessagesLostError`, `ShardLostError`."""
        ...

    def opinions(self) -> OpinionSummary:
        """All opinions as they are now."""
        ...

    def state_hash(self) -> str:
        """SHA-256 in hex of all columns in agent order."""
        ...

    def save(self, tick: int) -> None:
        """Begin to write a snapshot of the columns after `tick`; one that is still being written is waited for."""
        ...

    def settle(self) -> None:
        """Return once what `save` began is on its way to the disk. Raises `PopulationFolderError` where it could not be written."""
        ...

    def measures(self) -> EngineMeasures:
        """What was measured since it was opened."""
        ...

    def close(self) -> None:
        """End its workers and give all memory back; may be called at any moment, and twice."""
        ...
