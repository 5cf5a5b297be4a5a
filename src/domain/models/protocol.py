"""Protocols: how many rounds a deliberation has and who is asked at one time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors.deliberation import FieldProblem
from domain.models.agent import Agent
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS

__all__ = ["Protocol", "ProtocolKind"]


class ProtocolKind(StrEnum):
    """The protocols that can be run."""

    POLL = "poll"


@dataclass(frozen=True, slots=True)
class Protocol:
    """A poll: one blind round in which everyone is asked, at once or in waves of `wave_size` agents."""

    kind: ProtocolKind = ProtocolKind.POLL
    wave_size: int | None = None

    def problems(self, pointer: str = "/protocol") -> list[FieldProblem]:
        """What keeps this protocol from being run."""
        if self.wave_size is not None and not 1 <= self.wave_size <= MAX_CONCURRENT_AGENTS:
            return [FieldProblem(f"{pointer}/wave_size", f"must be 1 to {MAX_CONCURRENT_AGENTS}")]
        return []

    def waves(self, agents: Sequence[Agent]) -> Iterator[Sequence[Agent]]:
        """The agents in the groups in which they are asked, in order."""
        size = self.wave_size or len(agents) or 1
        for start in range(0, len(agents), size):
            yield agents[start : start + size]
