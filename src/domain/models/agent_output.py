"""What one agent gave back: an output, or a failure with its cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

from domain.models.budget import Usage
from domain.models.roll_call import AgentState

__all__ = ["AgentFailure", "AgentOutput"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class AgentOutput:
    """One agent's reply before it is recorded; it may not be shown until it is.

    `content` is text of at most 64 KiB (`truncated` says whether it was cut). `duration_seconds` covers all attempts. What an
    orchestrator gives as `usage` is that of its one call; what the fan-out gives back covers all attempts.
    """

    agent_id: str
    request_id: UUID
    content: str
    output_id: UUID = field(default_factory=uuid4)
    batch_id: str = ""
    content_type: str = "text/plain"
    generated_at: datetime = field(default_factory=_now)
    attempt: int = 1
    model: str | None = None
    usage: Usage = field(default_factory=Usage)
    truncated: bool = False
    simulated: bool = False
    duration_seconds: float = 0.0
    fell_back: bool = False


@dataclass(frozen=True, slots=True)
class AgentFailure:
    """Why one agent has no usable output: how the roll call counts it, a machine-readable kind and a message."""

    agent_id: str
    kind: str
    message: str
    attempts: int
    duration_seconds: float
    state: AgentState = AgentState.FAILED
    usage: Usage = field(default_factory=Usage)
    fell_back: bool = False
