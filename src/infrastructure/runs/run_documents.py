"""Runs, their events and the counts of their buses and populations as the JSON that lies in their files, and back, whatever lies there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NoReturn

from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import Run, RunKind
from domain.models.run_event import RunEvent

__all__ = [
    "bus_document",
    "encode",
    "event_line",
    "population_document",
    "read_event",
    "read_object",
    "read_run",
    "run_document",
]


_MAX_DEPTH = 32


def encode(document: Mapping[str, Any]) -> bytes:
    """`document` as JSON on one line, lone surrogates replaced. Raises `ValueError` and `TypeError` for what is none, such as NaN."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode(errors="replace")


def read_object(raw: bytes | None) -> dict[str, Any] | None:
    """The JSON object in `raw`, None where there is none, or one that could not be shown: too deep, NaN, a lone surrogate."""
    if raw is None:
        return None
    try:
        found = json.loads(raw, parse_constant=_refuse)
        if not isinstance(found, dict) or not _is_shallow(found):
            return None
        if b"\\ud" in raw.lower():
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return found


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name!r} is no JSON")


def _is_shallow(found: dict[str, Any]) -> bool:
    level: list[Any] = [found]
    for _ in range(_MAX_DEPTH):
        level = [
            member
            for value in level
            for member in (value.values() if isinstance(value, dict) else value)
            if isinstance(member, dict | list)
        ]
        if not level:
            return True
    return False


def run_document(run: Run) -> dict[str, Any]:
    """Everything of it but its result, which lies in a file of its own."""
    return {
        "id": run.id,
        "kind": run.kind.value,
        "status": run.status.value,
        "arguments": dict(run.arguments),
        "started_at": _text(run.started_at),
        "finished_at": _text(run.finished_at),
        "reason": run.reason,
        "key_name": run.key_name,
    }


def read_run(raw: bytes | None, *, run_id: str) -> Run | None:
    """The run of that id, None for anything else."""
    found = read_object(raw)
    if found is None or found.get("id") != run_id or not isinstance(found.get("arguments"), dict):
        return None
    reason, key_name = found.get("reason"), found.get("key_name")
    if not all(text is None or isinstance(text, str) for text in (reason, key_name)):
        return None
    try:
        return Run(
            id=run_id,
            kind=RunKind(str(found.get("kind"))),
            status=DeliberationStatus(str(found.get("status"))),
            arguments=found["arguments"],
            started_at=_moment(found.get("started_at")),
            finished_at=_moment(found.get("finished_at")),
            reason=reason,
            key_name=key_name,
        )
    except (ValueError, TypeError, OverflowError):
        return None


def event_line(event: RunEvent) -> bytes:
    """One line. Raises `ValueError` and `TypeError` for data that is no JSON."""
    data = {name: value for name, value in event.data.items() if name not in _FIELDS}
    fields = {"sequence": event.sequence, "type": event.type, "at": _text(event.at), "run_id": event.run_id}
    return encode({**fields, **data}) + b"\n"


def read_event(line: bytes, *, run_id: str) -> RunEvent | None:
    """The event in that line, None for anything else."""
    found = read_object(line)
    if found is None or found.get("run_id") != run_id:
        return None
    sequence, kind, data = (
        found.get("sequence"),
        found.get("type"),
        {k: v for k, v in found.items() if k not in _FIELDS},
    )
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1 or not isinstance(kind, str):
        return None
    try:
        at = _moment(found.get("at"))
    except (ValueError, TypeError, OverflowError):
        return None
    return None if at is None else RunEvent(run_id, sequence, kind, at, data)


def bus_document(by_transport: Mapping[str, BusStats]) -> dict[str, Any]:
    """The counts by transport, in the words of `BusStats`; bounds of the histogram are texts, the last one `inf`."""
    return {
        transport: {
            "sent": stats.sent,
            "delivered": stats.delivered,
            "dead_letters": stats.dead_letters,
            "queued": sum(stats.queued.values()),
            "latency_histogram": {repr(float(bound)): count for bound, count in stats.latency_histogram.items()},
            "latency_sum_s": stats.latency_sum_s if math.isfinite(stats.latency_sum_s) else 0.0,
        }
        for transport, stats in by_transport.items()
    }


def population_document(counts: PopulationCounts) -> dict[str, Any]:
    """The counts of a population, in the words of `PopulationCounts`."""
    return {**asdict(counts), "tick_sum_s": counts.tick_sum_s if math.isfinite(counts.tick_sum_s) else 0.0}


_FIELDS = frozenset({"sequence", "type", "at", "run_id"})


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _moment(text: object) -> datetime | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError("no time is anything but a text")
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("a time without its zone is none")
    return at.astimezone(UTC)
