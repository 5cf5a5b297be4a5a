"""Events: what happened in a deliberation, in an order without gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["TERMINAL_EVENTS", "Event"]

TERMINAL_EVENTS = frozenset(
    f"deliberation.{status}" for status in ("completed", "inquorate", "cancelled", "halted", "failed")
)


@dataclass(frozen=True, slots=True)
class Event:
    """What a recorded entry tells of a step of the work; `sequence` starts at 1 in each deliberation and has no gaps."""

    deliberation_id: str
    sequence: int
    type: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether no event of this deliberation follows."""
        return self.type in TERMINAL_EVENTS
