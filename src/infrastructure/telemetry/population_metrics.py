"""What the populations of all runs in the data folder counted, summed up from the counts that they leave there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from domain.models.population_counts import TICK_BOUNDS_S, PopulationCounts
from infrastructure.runs.file_run_record import POPULATION_FILE
from infrastructure.telemetry.followed_runs import FollowedRuns

__all__ = ["PopulationSample", "PopulationSums"]

_LARGEST = 2**62
_MESSAGES = ("delivered", "expired", "refused")


@dataclass(slots=True)
class PopulationSample:
    """The sums over all runs; `running` and `agents` are of those that are under way."""

    running: int = 0
    agents: int = 0
    ticks: int = 0
    messages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_MESSAGES, 0))
    tick_seconds: list[int] = field(default_factory=lambda: [0] * len(TICK_BOUNDS_S))
    tick_sum_s: float = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative buckets of tick times, `+Inf` last."""
        names = ["+Inf" if math.isinf(bound) else repr(float(bound)) for bound in TICK_BOUNDS_S]
        return [(name, float(reached)) for name, reached in zip(names, accumulate(self.tick_seconds), strict=True)]

    def grow(self, now: PopulationCounts, before: PopulationCounts) -> None:
        """Add what one run counted since `before`; nothing ever goes down, whatever its file says."""
        self.ticks += max(0, now.ticks - before.ticks)
        for name in _MESSAGES:
            self.messages[name] += max(0, getattr(now, name) - getattr(before, name))
        pairs = zip(self.tick_seconds, now.tick_seconds, before.tick_seconds, strict=True)
        self.tick_seconds = [total + max(0, one - other) for total, one, other in pairs]
        self.tick_sum_s += max(0.0, now.tick_sum_s - before.tick_sum_s)


class PopulationSums:
    """Reads of each run what is new since the last time, so that a scrape costs little. Sums grow, also when old runs are removed."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of all runs; it may not be there yet."""
        self._runs = FollowedRuns(folder, POPULATION_FILE)
        self._turn = Lock()
        self._total = PopulationSample()
        self._known: dict[str, PopulationCounts] = {}

    def sample(self) -> PopulationSample:
        """The sums now. What cannot be read counts as it was read last."""
        with self._turn:
            self._runs.look(self._take)
            self._known = {name: counts for name, counts in self._known.items() if name in self._runs.known}
            going_on = self._runs.going_on() & self._known.keys()
            self._total.running = len(going_on)
            self._total.agents = sum(self._known[name].agents for name in going_on)
            return self._total

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        counts = _counts(document)
        self._total.grow(counts, self._known.get(name, PopulationCounts()))
        self._known[name] = counts


def _counts(document: Mapping[str, Any]) -> PopulationCounts:
    """What the document says; what is no count counts nothing."""
    buckets = document.get("tick_seconds")
    seconds = document.get("tick_sum_s")
    fits = isinstance(buckets, list) and len(buckets) == len(TICK_BOUNDS_S)
    return PopulationCounts(
        agents=_whole(document.get("agents")),
        ticks=_whole(document.get("ticks")),
        delivered=_whole(document.get("delivered")),
        expired=_whole(document.get("expired")),
        refused=_whole(document.get("refused")),
        tick_seconds=[_whole(count) for count in buckets] if fits else [0] * len(TICK_BOUNDS_S),  # type: ignore[union-attr]
        tick_sum_s=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < _LARGEST else 0.0,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else 0
