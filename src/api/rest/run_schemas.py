"""Swarms, pantheons, soaks and populations, as schemas."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.rest.schema_document import Document, Status

__all__ = [
    "Run",
    "RunEvent",
    "RunPage",
    "RunRequest",
]


class RunRequest(Document):
    """What to run."""

    kind: Literal["swarm", "pantheon", "soak", "population"]
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Those options of the command line that name neither code nor files, with `_` for `-`.",
    )


class Run(Document):
    """A run, as it is recorded."""

    id: str
    kind: Literal["swarm", "pantheon", "soak", "population"]
    status: Status
    started_at: str | None = Field(description="RFC 3339; null until its process has begun.")
    finished_at: str | None
    arguments: dict[str, Any] = Field(description="Those that were given, with the defaults of the others.")
    result: dict[str, Any] | None = Field(
        description="Its document, once it has ended; in a page null where it is large."
    )
    reason: str | None = Field(description="Why it ended as it did, where its result does not say so.")


class RunPage(Document):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


class RunEvent(Document):
    """One event of a run, the `data` of a server-sent event."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    sequence: int = Field(description="From 1, without gaps; also the event's `id`.")
    type: str = Field(description="`run.started`, what the work notes, and the terminal `run.completed` and its like.")
    at: str = Field(description="RFC 3339.")
    run_id: str
