"""Lets whatever an orchestrator logs while it asks an agent say which agent that was."""

from __future__ import annotations

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest
from application.services.log_ids import log_ids

__all__ = ["NamedCalls"]


class NamedCalls:
    """Asks through another orchestrator and changes nothing about it but the log."""

    def __init__(self, orchestrator: AgentOrchestratorProtocol) -> None:
        self._orchestrator = orchestrator

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """As the other does."""
        with log_ids(batch_id=request.batch_id, agent_id=request.agent_id):
            return await self._orchestrator.invoke(request)

    def prompt_of(self, request: AgentRequest) -> str | None:
        """As the other says."""
        describe = getattr(self._orchestrator, "prompt_of", None)
        return None if describe is None else describe(request)
