"""What the ticks of a population have counted so far, for whoever measures it from outside."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["TICK_BOUNDS_S", "PopulationCounts"]

TICK_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, float("inf"))
"""Upper bounds of the histogram of tick times, in seconds."""


@dataclass(slots=True)
class PopulationCounts:
    """Only grows, but for `agents`, who live now. Ticks that are taken again after a resume count again: they were taken.

    `tick_seconds` counts by the bounds of `TICK_BOUNDS_S`, each tick once.
    """

    agents: int = 0
    ticks: int = 0
    delivered: int = 0
    expired: int = 0
    refused: int = 0
    tick_seconds: list[int] = field(default_factory=lambda: [0] * len(TICK_BOUNDS_S))
    tick_sum_s: float = 0.0

    def add(self, *, delivered: int, expired: int, refused: int, alive: int, tick_s: float) -> None:
        """One more tick that took so long."""
        self.agents = alive
        self.ticks += 1
        self.delivered += delivered
        self.expired += expired
        self.refused += refused
        self.tick_seconds[bisect_left(TICK_BOUNDS_S, tick_s)] += 1
        self.tick_sum_s += tick_s

    def copy(self) -> PopulationCounts:
        """The same counts as they are now."""
        return PopulationCounts(
            self.agents,
            self.ticks,
            self.delivered,
            self.expired,
            self.refused,
            list(self.tick_seconds),
            self.tick_sum_s,
        )
