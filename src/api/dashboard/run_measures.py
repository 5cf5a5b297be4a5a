"""The measures of a run that stand in more than one place of its page: one value of each, by one definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.report.reading import number
from application.ports.run_series import RunSeries
from domain.models.run import Run

__all__ = ["message_rate", "number_at", "quantiles"]

# Where the result of a run says the quantiles of a line, and how many of the line's unit that unit is.
_TOLD: Mapping[str, tuple[str, float]] = {
    "tick_ms": ("tick_ms", 1.0),
    "duration_ms": ("cycle_ms", 1.0),
    "latency_ms": ("latency_us", 1e-3),
}
_RATE = "messages_per_second"


def number_at(found: Mapping[str, Any], *path: str) -> float | None:
    """The number at that place, None for anything else that lies there."""
    value: Any = found
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    known = number(value)
    return None if known is None else float(known)


def quantiles(run: Run, series: RunSeries, line: str) -> tuple[float | None, float | None]:
    """What half and what 95 % of a line lie below, in its unit: as the result says, and until there is one as the rows do.

    The line is `tick_ms`, `duration_ms` or `latency_ms`.
    """
    told, scale = _TOLD[line]
    p50, p95 = (number_at(run.result or {}, told, name) for name in ("p50", "p95"))
    if p50 is not None and p95 is not None:
        return p50 * scale, p95 * scale
    summary = series.summaries.get(line)
    return (None, None) if summary is None else (summary.p50, summary.p95)


def message_rate(run: Run, series: RunSeries) -> float | None:
    """Messages that were delivered a second: all of the run so far, over the sum of the times that its ticks took.

    The result says so, and before there is one the mean of the line.
    """
    told = number_at(run.result or {}, _RATE)
    summary = series.summaries.get(_RATE)
    return told if told is not None or summary is None else summary.mean
