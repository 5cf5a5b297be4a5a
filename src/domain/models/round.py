"""A round: the agents asked at one time, and how each of them ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from domain.models.budget import Usage
from domain.models.roll_call import AgentState, RollCall
from domain.voting.ballot import Answer, Ballot

__all__ = ["AgentRecord", "FailureCause", "Round"]


@dataclass(frozen=True, slots=True)
class FailureCause:
    """Why an agent neither answered nor abstained."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """How one agent ended in one round: what is recorded, and shown only afterwards.

    `fell_back` says that its last call asked another model of its route than the first.
    """

    round_number: int
    agent_id: str
    state: AgentState
    attempts: int
    started_at: datetime | None
    finished_at: datetime
    content: str | None = None
    answer: Answer = None
    confidence: float | None = None
    reasoning: str | None = None
    failure: FailureCause | None = None
    model_asked: str | None = None
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    truncated: bool = False
    duration_seconds: float = 0.0
    fell_back: bool = False

    def ballot(self) -> Ballot | None:
        """The ballot as the rule reads it, or None when the agent neither answered nor abstained."""
        if not self.state.took_part:
            return None
        return Ballot(self.agent_id, self.answer, self.confidence, self.reasoning)


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round; its roll call is derived from its records. Round 0 is blind.

    `kept` names those asked whose ballot of an earlier round is in the tally, because they did not take part in this one.
    """

    number: int
    records: tuple[AgentRecord, ...]
    tally: Mapping[str, float] = field(default_factory=dict)
    purpose: str = "answer"
    kept: Mapping[str, int] = field(default_factory=dict)

    @property
    def roll_call(self) -> RollCall:
        """How those asked in this round ended."""
        return RollCall.of(record.state for record in self.records)
