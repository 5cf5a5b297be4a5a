"""What the buses of the runs of a data folder carried, by transport."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BusTraffic"]


@dataclass(frozen=True, slots=True)
class BusTraffic:
    """The sums of one transport over all runs; `queued` of runs under way alone. Latencies in seconds, None without a message.

    Quantiles are the upper bounds of the histogram's buckets in which they lie.
    """

    transport: str
    messages: int
    dead_letters: int
    queued: int
    mean_s: float | None = None
    p50_s: float | None = None
    p95_s: float | None = None
