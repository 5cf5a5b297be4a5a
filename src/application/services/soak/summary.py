"""The summary of a stream of metrics, whoever wrote it: the lines of a soak, of this version or an earlier tool's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from application.services.soak.tally import ROW_TYPE
from domain.models.run import JsonValue
from domain.models.soak_criteria import judge_variance, percentile

__all__ = ["summarise"]

_LONGEST_LINE = 1_000_000


def summarise(lines: Iterable[str]) -> dict[str, JsonValue]:
    """Counts, rates, times (ms) and memory (bytes) of the rows in `lines`; what is no row of a cycle is counted in `skipped`."""
    rows: list[Mapping[str, Any]] = []
    skipped = 0
    for line in lines:
        if not line.strip():
            continue
        row = _row(line)
        if row is None:
            skipped += 1
        else:
            rows.append(row)
    durations = [_number(row.get("duration")) for row in rows]
    rates = [_number(row.get("responseRate")) for row in rows]
    memory = [_number(_inner(row, "memoryStats", "average")) for row in rows]
    judged = [_number(row.get("judgedDuration", row.get("duration"))) for row in rows]
    return {
        "cycles": len(rows),
        "skipped": skipped,
        "first_cycle": int(_number(rows[0].get("cycle"))) if rows else None,
        "last_cycle": int(_number(rows[-1].get("cycle"))) if rows else None,
        "missing_cycles": _missing(rows),
        "messages_sent": int(sum(_number(row.get("messagesSent")) for row in rows)),
        "responses_received": int(sum(_number(row.get("responsesReceived")) for row in rows)),
        "response_rate": {"min": min(rates, default=None), "mean": sum(rates) / len(rates) if rates else None},
        "cycle_ms": {
            "p50": percentile(durations, 0.5),
            "p95": percentile(durations, 0.95),
            "max": max(durations, default=0.0),
        },
        "cycle_variance": judge_variance(judged).document(),
        "memory": {
            "first": memory[0] if memory else None,
            "last": memory[-1] if memory else None,
            "max": max(memory, default=None),
            "growth_rate": _number(_inner(rows[-1], "memoryStats", "growthRate")) if rows else None,
        },
        "crashed_agents": int(sum(_count(row.get("crashedAgents")) for row in rows)),
    }


def _row(line: str) -> Mapping[str, Any] | None:
    if len(line) > _LONGEST_LINE:
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and row.get("type") == ROW_TYPE else None


def _missing(rows: Iterable[Mapping[str, Any]]) -> int:
    """How many numbers between the first and the last cycle have no row."""
    seen = {int(_number(row.get("cycle"))) for row in rows}
    return max(seen) - min(seen) + 1 - len(seen) if seen else 0


def _inner(row: Mapping[str, Any], *path: str) -> Any:
    found: Any = row
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _number(value: object) -> float:
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if finite else 0.0  # type: ignore[arg-type]


def _count(value: object) -> float:
    return float(len(value)) if isinstance(value, list) else _number(value)
