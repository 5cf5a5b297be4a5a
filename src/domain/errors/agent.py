"""What can go wrong with one agent, its slot or its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from domain.errors.conclave_error import ConclaveError
from domain.models.roll_call import AgentState

if TYPE_CHECKING:
    from domain.models.budget import Usage

__all__ = ["AgentAlreadyActiveError", "AgentError", "AgentInvocationError", "AgentPoolExhaustedError"]


class AgentError(ConclaveError):
    """Root of the errors about agents."""

    slug: ClassVar[str] = "agent-error"


class AgentPoolExhaustedError(AgentError):
    """More agents were asked for at once than there are slots, or than may wait for one."""

    slug: ClassVar[str] = "agent-pool-exhausted"

    def __init__(self, *, requested: int, available: int, capacity: int, what: str = "slots") -> None:
        super().__init__(
            f"{requested} agents asked for at once, but {available} of {capacity} {what} are free (FR10): "
            "ask fewer agents, wait for others to end, or raise CONCLAVE_MAX_CONCURRENT_AGENTS."
        )
        self.requested = requested
        self.available = available
        self.capacity = capacity


class AgentAlreadyActiveError(AgentError):
    """The same agent was asked for twice in one batch; slots are never merged."""

    slug: ClassVar[str] = "agent-already-active"

    def __init__(self, *, agent_id: str, batch_id: str) -> None:
        super().__init__(
            f"agent {agent_id!r} is already in batch {batch_id!r}: ask each agent once a batch, or use another batch id."
        )
        self.agent_id = agent_id
        self.batch_id = batch_id


class AgentInvocationError(AgentError):
    """One call to one agent ended without a usable output.

    `state` is how the roll call counts it if no further attempt succeeds, `kind` the short machine-readable cause,
    `retryable` whether another attempt may help and `retry_after_s` how many seconds the far end asked to wait. `usage` is what the
    call took, none of it where the far end refused it; None where nobody knows, because it may have been answered and paid for.
    """

    slug: ClassVar[str] = "agent-invocation"

    def __init__(
        self,
        message: str,
        *,
        agent_id: str = "",
        kind: str = "invocation_error",
        state: AgentState = AgentState.FAILED,
        retryable: bool = False,
        retry_after_s: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.agent_id = agent_id
        self.kind = kind
        self.state = state
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.usage = usage
