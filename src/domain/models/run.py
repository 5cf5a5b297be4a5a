"""A run: one swarm, pantheon, soak or population in a process of its own, from its start to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from domain.models.deliberation import DeliberationStatus

__all__ = ["JsonValue", "Run", "RunEnding", "RunKind"]

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"


class RunKind(StrEnum):
    """What is run."""

    SWARM = "swarm"
    PANTHEON = "pantheon"
    SOAK = "soak"
    POPULATION = "population"


@dataclass(frozen=True, slots=True)
class RunEnding:
    """How a run ended: a terminal status and its document of contract section 7, which holds what was counted however it ended."""

    status: DeliberationStatus
    result: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Run:
    """One run as everybody sees it; it has the statuses of a deliberation. `key_name` is whose it is, None for the command line's."""

    id: str
    kind: RunKind
    status: DeliberationStatus
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    result: Mapping[str, JsonValue] | None = None
    # Why it ended as it did, where its result does not say so.
    reason: str | None = None
    key_name: str | None = None
