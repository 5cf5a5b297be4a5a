"""What populations have to reach on two cores: the table of targets, and how measured figures stand against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from domain.models.run import JsonValue

__all__ = ["TARGETS", "Target", "judged"]


@dataclass(frozen=True, slots=True)
class Target:
    """One row: what must be reached and what is aimed at, in `unit`. `more` is better where it is true, less otherwise."""

    name: str
    what: str
    unit: str
    must: float
    aim: float
    more: bool = False
    # What must be reached without the compiled loops, where that differs.
    must_with_numpy: float | None = None

    def verdict(self, value: float | None, *, kernel: str) -> str:
        """`aim`, `must` or `miss`, and `not measured` where there is no value."""
        if value is None:
            return "not measured"
        if self._reaches(value, self.aim):
            return "aim"
        must = self.must_with_numpy if kernel == "numpy" and self.must_with_numpy is not None else self.must
        return "must" if self._reaches(value, must) else "miss"

    def _reaches(self, value: float, bar: float) -> bool:
        return value >= bar if self.more else value <= bar


TARGETS = (
    Target("tick_ms", "1,000,000 agents: whole tick, mean", "ms", 100, 35),
    Target("messages", "messages routed and delivered", "M/s", 10, 35, more=True, must_with_numpy=8),
    Target("memory", "memory at 1 KB state", "GiB", 2, 1.4),
    Target("spawn", "spawn per agent", "us", 100, 1),
    Target("same_shard", "delivery in the same shard, p99", "ms", 1, 0.2),
    Target("cross_shard", "delivery across shards, p99", "ms", 10, 0.5),
    Target("coordination", "coordination, root to root", "ms", 50, 1),
    Target("hot", "hot access, p99", "us", 5_000, 5),
    Target("warm", "warm access, p99", "us", 50_000, 50),
    Target("cold", "cold access, p99", "us", 500_000, 5_000),
    Target("hot_hits", "hot hits at Zipf 1.2", "%", 90, 95, more=True),
    Target("inferences_100k", "100,000 inferences, policy network", "s", 10, 0.1),
    Target("inferences_1m", "1,000,000 inferences, policy network", "s", 10, 1),
    # Only where a CUDA device is at hand.
    Target("cuda_batch", "CUDA: batch of 16,384 inferences", "ms", 100, 5),
    Target("cuda_utilisation", "CUDA: utilisation", "%", 80, 90, more=True),
    Target("cuda_tick", "CUDA: whole tick, mean", "ms", 20, 2),
    Target("small_tick_ms", "10,000 agents, one core: whole tick, mean", "ms", 100, 1),
    Target("small_memory", "10,000 agents, one core: memory", "MB", 1_000, 150),
    Target("small_delivery", "10,000 agents, one core: delivery, p99", "ms", 1, 1),
    Target("middle_tick_ms", "100,000 agents, 24 shards: whole tick, mean", "ms", 100, 5),
    Target("middle_memory", "100,000 agents, 24 shards: memory", "MB", 10_000, 400),
    Target("resume", "resume after SIGKILL at tick 1,000", "s", 10, 2),
)


def judged(
    figures: Mapping[str, float | None], *, kernel: str, targets: Iterable[Target] = TARGETS
) -> list[dict[str, JsonValue]]:
    """The table: each target with what was measured and whether it is met."""
    return [
        {
            "name": target.name,
            "what": target.what,
            "unit": target.unit,
            "must": target.must_with_numpy if kernel == "numpy" and target.must_with_numpy else target.must,
            "aim": target.aim,
            "value": figures.get(target.name),
            "verdict": target.verdict(figures.get(target.name), kernel=kernel),
        }
        for target in targets
    ]
