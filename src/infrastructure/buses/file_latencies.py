"""How long messages of a file bus took, counted by all its objects in words that they share."""

from __future__ import annotations

import math

from infrastructure.buses.bus_statistics import LatencyHistogram
from infrastructure.buses.file_words import BUCKETS, FIRST_BUCKET, State

__all__ = ["count_latency", "latency_us", "read_latencies"]


def count_latency(state: memoryview, elapsed_ns: int) -> None:
    """Count one; a negative one is of a message from before the machine restarted."""
    if elapsed_ns < 0:
        return
    elapsed_ns = max(1, elapsed_ns)
    # The upper half of the single of that value, as `LatencyHistogram` has it.
    mantissa, exponent = math.frexp(elapsed_ns * 1e-9)
    bucket = (exponent + 125) * 128 + int(mantissa * 256) - FIRST_BUCKET
    state[State.LATENCIES + min(max(bucket, 0), BUCKETS - 1)] += 1
    if elapsed_ns > state[State.LATENCY_MAX]:
        state[State.LATENCY_MAX] = elapsed_ns
    smallest = state[State.LATENCY_MIN]
    if smallest == 0 or elapsed_ns < smallest:
        state[State.LATENCY_MIN] = elapsed_ns


def read_latencies(state: memoryview) -> LatencyHistogram:
    """All that were counted."""
    counts = state[State.LATENCIES : State.LATENCIES + BUCKETS].tolist()
    histogram = LatencyHistogram()
    histogram.merge({FIRST_BUCKET + bucket: each for bucket, each in enumerate(counts) if each})
    return histogram


def latency_us(state: memoryview, latencies: LatencyHistogram) -> dict[str, float]:
    """`min`, `p50`, `p95`, `p99` and `max` in microseconds; empty when nothing was counted."""
    summary = latencies.summary_us()
    if summary:
        smallest, largest = state[State.LATENCY_MIN] / 1e3, state[State.LATENCY_MAX] / 1e3
        summary = {name: min(max(value, smallest), largest) for name, value in summary.items()}
        summary["min"], summary["max"] = smallest, largest
    return summary
