"""The server itself as schemas: who can be asked, its pool of agents, whether it can work, and whether it is halted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from api.rest.schema_document import Document

__all__ = [
    "Alive",
    "Halt",
    "HaltReason",
    "Pool",
    "Readiness",
    "Roster",
    "RosterPage",
]


class RosterEntry(Document):
    """A roster in the list."""

    name: str
    description: str
    count: int


class RosterPage(Document):
    """Every roster there is."""

    items: list[RosterEntry]
    next_cursor: str | None


class RosterAgent(Document):
    """One voice: an id, a viewpoint and, when it brings its own, a model."""

    id: str
    name: str
    persona: str
    model: str | None


class Roster(Document):
    """A roster with its agents, in order."""

    name: str
    description: str
    agents: list[RosterAgent]


class Pool(Document):
    """The pool of agent slots at this moment."""

    capacity: int
    active: int
    available: int
    waiting: int


class Alive(Document):
    """The server answers."""

    status: Literal["ok"]


class Dependency(Document):
    """Whether something the server needs works, and what to do when not."""

    works: bool
    detail: str


class Readiness(Document):
    """Whether the server can really work, each dependency by name."""

    status: Literal["ready", "unavailable", "stopping"]
    halted: bool = Field(description="No agent is called; everything can be read.")
    dependencies: dict[str, Dependency]


class HaltReason(Document):
    """Why to halt, or why to end the halt."""

    reason: str = Field(min_length=1, max_length=1000, description="The log commits to it for ever.")


class HaltChannel(Document):
    """One of the places where a halt is kept."""

    halted: bool = Field(description="Set, or out of reach: then the worse is taken for true.")
    reachable: bool


class Halt(Document):
    """Whether the system is halted."""

    halted: bool = Field(description="No agent is called: a channel is set, or one cannot be read.")
    reason: str | None
    since: str | None = Field(description="RFC 3339.")
    channels: dict[str, HaltChannel]
