"""The port through which one agent is asked: a request in, an output or a typed error out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID, uuid4

from domain.models.agent import CrewReference
from domain.models.agent_output import AgentOutput
from domain.models.budget import Sampling, Usage
from domain.models.question import AnswerFormat
from domain.protocols.round_plan import Brief

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
    """One call to one agent. `expected` is the ballot wanted, None when free text is; `attempt` counts from 1.

    `model` is the one to ask, or None for the orchestrator's own. `key_name` is the API key that the deliberation was accepted from.
    `earlier_models` are those that the attempts before this one asked, where another process made them. An orchestrator that makes
    more calls than one for one output awaits `next_call` before each further one, with what the last one took: it returns the request
    for that call once it is recorded and may be made, or raises as a stop does. `crew` is the operator's own that answers for the
    agent. `messages` are those to send, each a role and a text, where the agent is told something else than its question and persona
    are put into words for everybody. `brief` is what it is told of earlier rounds, and what it is to do in this one; in the blind
    round it is None.
    """

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
    key_name: str | None = None
    earlier_models: tuple[str | None, ...] = ()
    next_call: Callable[[Usage | None], Awaitable[AgentRequest]] | None = field(default=None, compare=False, repr=False)
    crew: CrewReference | None = None
    messages: tuple[tuple[str, str], ...] | None = None
    brief: Brief | None = None


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
