"""The port through which one agent is asked: a request in, an output or a typed error out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID, uuid4

from domain.models.agent_output import AgentOutput
from domain.models.budget import Sampling
from domain.models.question import AnswerFormat

__all__ = ["AgentOrchestratorProtocol", "AgentOutput", "AgentRequest", "ContextBundle"]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ContextBundle:
    """What all agents of a round are told: the topic and whatever belongs to it. Never changed after it is made."""

    topic_id: str
    topic_content: str
    background: str | None = None
    metadata: Mapping[str, str] | None = None
    bundle_id: UUID = field(default_factory=uuid4)
    created_at: datetime = field(default_factory=_now)


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One call to one agent. `expected` is the ballot wanted, None when free text is; `attempt` counts from 1."""

    agent_id: str
    context: ContextBundle
    request_id: UUID = field(default_factory=uuid4)
    persona: str = ""
    model: str | None = None
    expected: AnswerFormat | None = None
    sampling: Sampling = field(default_factory=Sampling)
    seed: int | None = None
    round_number: int = 0
    attempt: int = 1
    batch_id: str = ""


class AgentOrchestratorProtocol(Protocol):
    """Asks one agent and waits for its output. Any number of calls may be in flight at once.

    An implementation makes one call a time it is asked: retries, deadlines and slots have their one owner in
    `ConcurrentDeliberationService`. It lets cancellation through to the socket.
    """

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The output of that agent, carrying the request's agent and request ids.

        Raises `AgentInvocationError` with kind, state and whether another attempt may help. `SystemHaltedError` stops the
        whole batch. Anything else it raises becomes that agent's failure.
        """
        ...
