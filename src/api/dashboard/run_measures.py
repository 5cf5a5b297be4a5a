"""The measures of a run that stand in more than one place of its page: one value of each, by one definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.report.reading import number
from application.ports.run_series import RunSeries
from domain.models.run import Run

__all__ = ["message_rate", "number_at", "quantiles"]

# Where the result of a run says the quantiles of a line. That of a swarm has those of the way to Memory's count; the line of its rows is
# the way to the Log's note, and has its own.
_TOLD: Mapping[str, str] = {"tick_ms": "tick_ms", "duration_ms": "cycle_ms"}
_RATE = "messages_per_second"


def number_at(found: Mapping[str, Any], *path: str) -> float | None:
    """The number at that place, None for anything else that lies there."""
    value: Any = found
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    known = number(value)
    return None if known is None else float(known)


def quantiles(run: Run, series: RunSeries, line: str) -> tuple[float | None, float | None]:
    """What half and what 95 % of a line lie below, in its unit: as the result says it of that line, and without that as the rows do.

    The line is `tick_ms`, `duration_ms` or `latency_ms`.
    """
    if line in _TOLD:
        p50, p95 = (number_at(run.result or {}, _TOLD[line], name) for name in ("p50", "p95"))
        if p50 is not None and p95 is not None:
            return p50, p95
    summary = series.summaries.get(line)
    return (None, None) if summary is None else (summary.p50, summary.p95)


def message_rate(run: Run, series: RunSeries) -> float | None:
    """Messages that were delivered a second: all of the run so far, over the sum of the times that its ticks took.

    The result says so, and before there is one the mean of the line.
    """
    told = number_at(run.result or {}, _RATE)
    summary = series.summaries.get(_RATE)
    return told if told is not None or summary is None else summary.mean
