"""What a run told of itself, in an order without gaps, and the ids by which runs are known."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from domain.models.deliberation import DeliberationStatus
from domain.models.run import JsonValue

__all__ = [
    "MAX_TYPE_CHARACTERS",
    "RunEvent",
    "is_run_id",
    "may_be_noted",
    "new_run_id",
    "run_event_type",
    "was_begun_before",
]

MAX_TYPE_CHARACTERS = 64

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_TYPE = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
_OWN = "run."


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One step of a run; `sequence` starts at 1 in each run and has no gaps."""

    run_id: str
    sequence: int
    type: str
    at: datetime
    data: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def is_terminal(self) -> bool:
        """Whether no event of this run follows."""
        return self.type in _TERMINAL


def run_event_type(status: DeliberationStatus) -> str:
    """The type of the event that says that a run is now in `status`; a running one has `started`."""
    return f"{_OWN}{'started' if status is DeliberationStatus.RUNNING else status.value}"


def may_be_noted(type: str) -> bool:  # noqa: A002 - named as the field
    """Whether that is the type of an event of the work itself, and neither a name of nothing nor one of the run's own states."""
    return len(type) <= MAX_TYPE_CHARACTERS and bool(_TYPE.fullmatch(type)) and not type.startswith(_OWN)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TERMINAL = frozenset(run_event_type(status) for status in DeliberationStatus if status.is_terminal)


def new_run_id(at: datetime) -> str:
    """A name that no other run has and by which runs are in order of `at`: UUID version 7 (RFC 9562, 5.7), with microseconds."""
    # Whole numbers: a float of seconds loses the last microsecond.
    microseconds = (at - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1_000)
    # Twelve bits below the millisecond (RFC 9562, 6.2, method 3).
    number = (milliseconds << 80) | (0x7 << 76) | ((rest * 4096 // 1000) << 64) | (0b10 << 62) | secrets.randbits(62)
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def was_begun_before(run_id: str, at: datetime) -> bool:
    """Whether the run of that name is older than `at`, to the millisecond; it `is_run_id`."""
    return int(run_id[:13].replace("-", ""), 16) < (at - _EPOCH) // timedelta(milliseconds=1)


def is_run_id(text: str) -> bool:
    """Whether a run may have that name."""
    return bool(_ID.fullmatch(text))
