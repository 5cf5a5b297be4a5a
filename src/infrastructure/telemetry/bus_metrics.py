"""What went over the buses of all runs in the data folder, summed up by transport from the counts that they leave there."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from application.ports.bus_traffic import BusTraffic
from domain.models.message import LATENCY_BOUNDS_S
from infrastructure.runs.file_run_record import BUS_FILE
from infrastructure.telemetry.followed_runs import FollowedRuns

__all__ = ["TRANSPORTS", "BusCounts", "BusSample"]

TRANSPORTS = ("memory", "redis", "file", "shm")

_LARGEST = 2**62


@dataclass(slots=True)
class BusSample:
    """The sums of one transport; `latencies` counts by the bounds of `LATENCY_BOUNDS_S`, each message once."""

    messages: int = 0
    dead_letters: int = 0
    queued: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * len(LATENCY_BOUNDS_S))
    latency_sum_s: float = 0.0

    def buckets(self) -> list[tuple[str, float]]:
        """The cumulative buckets, `+Inf` last."""
        names = ["+Inf" if math.isinf(bound) else repr(float(bound)) for bound in LATENCY_BOUNDS_S]
        return [(name, float(reached)) for name, reached in zip(names, accumulate(self.latencies), strict=True)]

    def traffic(self, transport: str) -> BusTraffic:
        """The same in the words of the port."""
        count = sum(self.latencies)
        return BusTraffic(
            transport,
            self.messages,
            self.dead_letters,
            self.queued,
            mean_s=self.latency_sum_s / count if count else None,
            p50_s=self._quantile(0.5),
            p95_s=self._quantile(0.95),
        )

    def _quantile(self, share: float) -> float | None:
        reached = list(accumulate(self.latencies))
        if not reached[-1]:
            return None
        bound = LATENCY_BOUNDS_S[bisect_left(reached, share * reached[-1])]
        return None if math.isinf(bound) else bound

    def grow(self, now: BusSample, before: BusSample) -> None:
        """Add what one run counted since `before`; nothing ever goes down, whatever its file says."""
        self.messages += max(0, now.messages - before.messages)
        self.dead_letters += max(0, now.dead_letters - before.dead_letters)
        self.latency_sum_s += max(0.0, now.latency_sum_s - before.latency_sum_s)
        pairs = zip(self.latencies, now.latencies, before.latencies, strict=True)
        self.latencies = [total + max(0, one - other) for total, one, other in pairs]


class BusCounts:
    """Reads of each run what is new since the last time, so that a scrape costs little. Sums grow, also when old runs are removed."""

    def __init__(self, folder: Path) -> None:
        """`folder` is that of all runs; it may not be there yet."""
        self._runs = FollowedRuns(folder, BUS_FILE)
        self._turn = Lock()
        self._totals = {transport: BusSample() for transport in TRANSPORTS}
        self._known: dict[str, dict[str, BusSample]] = {}

    def samples(self) -> Mapping[str, BusSample]:
        """The sums now, by transport. What cannot be read counts as it was read last."""
        with self._turn:
            self._runs.look(self._take)
            self._known = {name: known for name, known in self._known.items() if name in self._runs.known}
            going_on = self._runs.going_on()
            for transport, total in self._totals.items():
                total.queued = sum(
                    known[transport].queued
                    for name, known in self._known.items()
                    if name in going_on and transport in known
                )
            return dict(self._totals)

    def traffic(self) -> Sequence[BusTraffic]:
        """The sums now, in the words of the port, one for each transport."""
        return [sample.traffic(transport) for transport, sample in self.samples().items()]

    def _take(self, name: str, document: Mapping[str, Any]) -> None:
        known = self._known.setdefault(name, {})
        for transport in TRANSPORTS:
            if isinstance(counts := document.get(transport), dict):
                sample = _sample(counts)
                self._totals[transport].grow(sample, known.get(transport, BusSample()))
                known[transport] = sample


def _sample(counts: Mapping[str, Any]) -> BusSample:
    seconds = counts.get("latency_sum_s")
    return BusSample(
        messages=_whole(counts.get("sent")),
        dead_letters=_whole(counts.get("dead_letters")),
        queued=_whole(counts.get("queued")),
        latencies=_latencies(counts.get("latency_histogram")),
        latency_sum_s=float(seconds) if isinstance(seconds, int | float) and 0 <= seconds < _LARGEST else 0.0,
    )


def _latencies(histogram: object) -> list[int]:
    """How many by our bounds, from how many up to theirs; theirs are the same unless another version wrote them."""
    found = [0] * len(LATENCY_BOUNDS_S)
    before = 0
    for bound, reached in _ascending(histogram):
        found[min(bisect_left(LATENCY_BOUNDS_S, bound), len(found) - 1)] += max(0, reached - before)
        before = max(before, reached)
    return found


def _ascending(histogram: object) -> Sequence[tuple[float, int]]:
    found = []
    for bound, reached in histogram.items() if isinstance(histogram, dict) else ():
        try:
            found.append((float(bound), _whole(reached)))
        except ValueError:
            continue
    return sorted(pair for pair in found if not math.isnan(pair[0]))


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST else 0
