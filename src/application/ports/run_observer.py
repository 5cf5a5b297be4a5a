"""The port through which a run says how it goes: its events, and the counts of its bus or of its population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue

__all__ = ["NullRunObserver", "RunObserver"]


class RunObserver(Protocol):
    """Takes note in passing: all calls are quick, wait for nothing and raise nothing."""

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        """One event of the run, such as `swarm.batch_ended`; at most some ten a second, so a summary where more happens."""
        ...

    def count(self, stats: BusStats) -> None:
        """The counts of the run's bus so far, about once a second and once at the end."""
        ...

    def tally(self, counts: PopulationCounts) -> None:
        """What the ticks of the run's population counted so far, about twice a second and once at the end."""
        ...


class NullRunObserver:
    """Takes note of nothing."""

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        """Nothing."""

    def count(self, stats: BusStats) -> None:
        """Nothing."""

    def tally(self, counts: PopulationCounts) -> None:
        """Nothing."""
