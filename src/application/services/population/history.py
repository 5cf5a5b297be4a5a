"""How the opinions of a population lay over time, in at most two hundred samples however long it runs."""

from __future__ import annotations

from collections.abc import Sequence

from application.ports.population_engine import OpinionSummary
from application.ports.population_record import Sample

__all__ = ["MAX_SAMPLES", "OpinionHistory"]

MAX_SAMPLES = 200
# A sample takes at most this share of the time.
_SHARE = 0.05


class OpinionHistory:
    """Holds at most `MAX_SAMPLES`: once there are more, every other one goes and the next ones lie twice as far apart.

    A run of any length is therefore sampled a few hundred times and then once each time that it has grown by a hundredth, and one
    sample follows another no sooner than twenty times what it took.
    """

    def __init__(self, samples: Sequence[Sample] = ()) -> None:
        """Go on after `samples`, which are in order."""
        self._samples = list(samples)
        self._stride = samples[-1].stride if samples else 1
        self._not_before = 0.0

    @property
    def samples(self) -> Sequence[Sample]:
        """In order."""
        return self._samples

    @property
    def last_tick(self) -> int | None:
        """That of the last sample."""
        return self._samples[-1].tick if self._samples else None

    def due(self, tick: int, now: float) -> bool:
        """Whether the opinions after `tick` are to be sampled. Times are in seconds."""
        last = self.last_tick
        return last is None or (tick - last >= self._stride and now >= self._not_before)

    def add(self, tick: int, opinions: OpinionSummary, *, resident_bytes: int, began: float, ended: float) -> bool:
        """Keep one that took from `began` to `ended`; whether older ones went, so that all are to be written anew."""
        self._not_before = ended + (ended - began) / _SHARE
        thinned = len(self._samples) >= MAX_SAMPLES
        if thinned:
            del self._samples[1::2]
            self._stride *= 2
        self._samples.append(
            Sample(
                tick=tick,
                stride=self._stride,
                mean=opinions.mean,
                variance=opinions.variance,
                histogram=tuple(opinions.histogram),
                communities=tuple(community.mean for community in opinions.communities),
                resident_bytes=resident_bytes,
            )
        )
        return thinned
