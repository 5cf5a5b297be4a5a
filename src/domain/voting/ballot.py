"""A ballot: one agent's answer as the rule reads it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Answer", "Ballot"]

Answer = str | float | tuple[str, ...] | None
"""An option, yes or no, or a text; a number; options in order of preference; None abstains."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """What one agent said: the answer, how sure it is (0 to 1) and why."""

    agent_id: str
    answer: Answer
    confidence: float | None = None
    reasoning: str | None = None

    @property
    def abstains(self) -> bool:
        """Whether the agent chose not to answer."""
        return self.answer is None
