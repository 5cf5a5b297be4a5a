"""The port to the folder of a population: its specification, its ticks, its event log and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from application.ports.population_engine import TickOutcome
from domain.models.run import JsonValue

__all__ = ["PopulationRecord", "Resumption", "Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """All opinions after one tick; `communities` are the means of the archetypes' own, in their order. `stride` is that of its time."""

    tick: int
    stride: int
    mean: float
    variance: float
    histogram: tuple[int, ...]
    communities: tuple[float, ...] = ()
    resident_bytes: int = 0

    def document(self) -> dict[str, JsonValue]:
        """As one line of samples.jsonl."""
        return {
            "tick": self.tick,
            "stride": self.stride,
            "mean": self.mean,
            "variance": self.variance,
            "resident_bytes": self.resident_bytes,
            "histogram": list(self.histogram),
            "communities": [round(mean, 6) for mean in self.communities],
        }

    @classmethod
    def from_document(cls, found: Mapping[str, Any]) -> Sample:
        """What `document` gave. Raises `KeyError`, `TypeError` and `ValueError`."""
        sample = cls(
            tick=int(found["tick"]),
            stride=int(found["stride"]),
            mean=float(found["mean"]),
            variance=float(found["variance"]),
            histogram=tuple(int(count) for count in found["histogram"]),
            communities=tuple(float(mean) for mean in found["communities"]),
            resident_bytes=int(found["resident_bytes"]),
        )
        if sample.tick < 0 or sample.stride < 1 or not sample.histogram:
            raise ValueError("is no sample")
        return sample


@dataclass(frozen=True, slots=True)
class Resumption:
    """From where a population goes on: after `tick`, with the counts of the ticks before it."""

    tick: int
    messages_routed: int
    initial: Mapping[str, JsonValue] | None
    # The exact opinion sums of later ticks that were logged already and will be taken again.
    logged: Mapping[int, int]
    # How the opinions lay until then.
    samples: Sequence[Sample] = ()


class PopulationRecord(Protocol):
    """Keeps a population so that it can be resumed after any end. Raises `PopulationFolderError` where it cannot be written."""

    def begin(self, initial: Mapping[str, JsonValue]) -> None:
        """Keep what the opinions were before the first tick."""
        ...

    def note(self, outcome: TickOutcome, tick_s: float) -> None:
        """Add one tick to `ticks.jsonl` and to the event log, flushed."""
        ...

    def note_sample(self, sample: Sample) -> None:
        """Add one sample to `samples.jsonl`, flushed."""
        ...

    def replace_samples(self, samples: Sequence[Sample]) -> None:
        """Keep these samples and no others."""
        ...

    def rewind(self, to: int | None = None) -> Resumption:
        """Go back to the last snapshot, or to that of tick `to`; later ticks are forgotten, since they will be taken again.

        Raises `DamagedRecordError` where the last snapshot or the log is damaged.
        """
        ...

    def finish(self, report: Mapping[str, JsonValue]) -> None:
        """Write the report and the page."""
        ...

    def close(self) -> None:
        """Give the folder free; may be called twice."""
        ...
