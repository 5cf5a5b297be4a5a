"""The autogen-core agent that the fan-out benchmark sends messages to; its message types have to live at module level."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler

__all__ = ["AgentId", "Answer", "Ask", "Panelist", "SingleThreadedAgentRuntime"]


@dataclass
class Ask:
    """A question."""

    text: str


@dataclass
class Answer:
    """Its answer."""

    text: str


class Panelist(RoutedAgent):  # type: ignore[misc]
    """Answers each question with what the model says."""

    def __init__(self, answer: Callable[[], Awaitable[str]]) -> None:
        super().__init__("panelist")
        self._answer = answer

    @message_handler  # type: ignore[untyped-decorator]
    async def on_ask(self, message: Ask, ctx: MessageContext) -> Answer:  # noqa: ARG002 - the signature is the runtime's
        """Ask the model."""
        return Answer(await self._answer())
