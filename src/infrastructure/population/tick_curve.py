"""How long the ticks of a population took over time, in so few points that a picture can show them all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_POINTS", "CurvePoint", "curve_of"]

MAX_POINTS = 200


@dataclass(slots=True)
class CurvePoint:
    """Some ticks in a row: their times in milliseconds and the messages that were delivered in them."""

    first: int
    last: int
    ticks: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0
    messages: int = 0

    @property
    def mean_ms(self) -> float:
        """Of one tick."""
        return self.total_ms / self.ticks if self.ticks else 0.0

    @property
    def messages_per_second(self) -> float:
        """Over the times of the ticks, without what lay between them."""
        return self.messages / self.total_ms * 1e3 if self.total_ms else 0.0

    def take(self, other: CurvePoint) -> None:
        """Add what came after."""
        self.last = other.last
        self.ticks += other.ticks
        self.total_ms += other.total_ms
        self.longest_ms = max(self.longest_ms, other.longest_ms)
        self.messages += other.messages


def curve_of(path: Path) -> list[CurvePoint]:
    """What `ticks.jsonl` says, in at most `MAX_POINTS` points of as many ticks each, the last one but for its rest.

    The file is read once from its beginning to its end; lines that are none are passed over.
    """
    points: list[CurvePoint] = []
    width = 1
    with path.open("rb") as file:
        for line in file:
            tick = _tick_in(line)
            if tick is None:
                continue
            if points and points[-1].ticks < width:
                points[-1].take(tick)
                continue
            if len(points) == MAX_POINTS:
                for point, following in zip(points[::2], points[1::2], strict=True):
                    point.take(following)
                del points[1::2]
                width *= 2
            points.append(tick)
    return points


def _tick_in(line: bytes) -> CurvePoint | None:
    try:
        found = json.loads(line)
        number, spent, messages = int(found["tick"]), float(found["tick_ms"]), int(found.get("messages", 0))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return CurvePoint(number, number, 1, spent, spent, messages)
