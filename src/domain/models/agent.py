"""Agents, the personas they speak from, and rosters of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors.deliberation import FieldProblem, InvalidSpecificationError
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.text import MAX_PERSONA_BYTES, text_problem

__all__ = ["MAX_AGENT_ID_BYTES", "MAX_MODEL_BYTES", "Agent", "CrewReference", "Persona", "Roster"]

MAX_AGENT_ID_BYTES = 128
MAX_MODEL_BYTES = 256


@dataclass(frozen=True, slots=True)
class Persona:
    """A viewpoint that an agent speaks from; not a promise of accuracy."""

    text: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class CrewReference:
    """A crew or an agent of CrewAI in a file of the operator's own, and which of its tools may be used.

    `source` is `path/to/file.py:name`, the path relative to the folder of the rosters. Only a roster file can name one.
    """

    source: str
    tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agent:
    """One voice: an id, a persona and, when it brings its own, a model or a crew that works the answer out."""

    id: str
    persona: Persona
    model: str | None = None
    crew: CrewReference | None = None

    def problems(self, pointer: str) -> list[FieldProblem]:
        """What keeps this agent from being asked; `pointer` is where it stands in the request (RFC 6901)."""
        found = []
        if problem := _id_problem(self.id):
            found.append(FieldProblem(f"{pointer}/id", problem))
        if problem := text_problem(self.persona.text, max_bytes=MAX_PERSONA_BYTES):
            found.append(FieldProblem(f"{pointer}/persona", problem))
        if self.model is not None and (problem := text_problem(self.model, max_bytes=MAX_MODEL_BYTES)):
            found.append(FieldProblem(f"{pointer}/model", problem))
        return found


def _id_problem(agent_id: str) -> str | None:
    if problem := text_problem(agent_id, max_bytes=MAX_AGENT_ID_BYTES):
        return problem
    return None if agent_id.isprintable() else "must be printable"


@dataclass(frozen=True, slots=True)
class Roster:
    """An ordered set of 1 to 72 agents with distinct ids."""

    name: str
    agents: tuple[Agent, ...]
    description: str = ""

    @classmethod
    def assemble(cls, name: str, agents: Sequence[Agent], *, description: str = "", pointer: str = "/agents") -> Roster:
        """The only way to a valid roster. Raises `InvalidSpecificationError` naming every agent that cannot stand in it."""
        problems: list[FieldProblem] = []
        if not 1 <= len(agents) <= MAX_CONCURRENT_AGENTS:
            problems.append(FieldProblem(pointer, f"has {len(agents)} agents, 1 to {MAX_CONCURRENT_AGENTS} are taken"))
        seen: set[str] = set()
        for number, agent in enumerate(agents):
            problems += agent.problems(f"{pointer}/{number}")
            if agent.id in seen:
                problems.append(FieldProblem(f"{pointer}/{number}/id", "stands twice in the roster"))
            seen.add(agent.id)
        if problems:
            raise InvalidSpecificationError(problems)
        return cls(name, tuple(agents), description)

    def first(self, count: int) -> Roster:
        """The roster of its first `count` agents."""
        return Roster(self.name, self.agents[:count], self.description)
