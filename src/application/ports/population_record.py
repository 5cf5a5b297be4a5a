"""The port to the folder of a population: its specification, its ticks, its event log and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from application.ports.population_engine import TickOutcome
from domain.models.run import JsonValue

__all__ = ["PopulationRecord", "Resumption"]


@dataclass(frozen=True, slots=True)
class Resumption:
    """From where a population goes on: after `tick`, with the counts of the ticks before it."""

    tick: int
    messages_routed: int
    initial: Mapping[str, JsonValue] | None
    # The exact opinion sums of later ticks that were logged already and will be taken again.
    logged: Mapping[int, int]


class PopulationRecord(Protocol):
    """Keeps a population so that it can be resumed after any end. Raises `PopulationFolderError` where it cannot be written."""

    def begin(self, initial: Mapping[str, JsonValue]) -> None:
        """Keep what the opinions were before the first tick."""
        ...

    def note(self, outcome: TickOutcome, tick_s: float) -> None:
        """Add one tick to `ticks.jsonl` and to the event log, flushed."""
        ...

    def rewind(self, to: int | None = None) -> Resumption:
        """Go back to the last snapshot, or to that of tick `to`; later ticks are forgotten, since they will be taken again.

        Raises `DamagedRecordError` where the last snapshot or the log is damaged.
        """
        ...

    def finish(self, report: Mapping[str, JsonValue]) -> None:
        """Write the report."""
        ...

    def close(self) -> None:
        """Give the folder free; may be called twice."""
        ...
