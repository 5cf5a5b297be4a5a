"""How one agent ended in one round, as the server shows it. Texts that were erased read as None."""

from __future__ import annotations

from dataclasses import dataclass

from conclave_client.deliberation import TokenUsage
from conclave_client.document import Document

__all__ = ["Ballot", "Output", "OutputFailure"]

Ballot = str | float | tuple[str, ...]
"""One agent's answer: an option, a verdict, a text, a number, or options in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFailure(Document):
    """Why an agent has no usable output."""

    kind: str
    message: str | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Output(Document):
    """How one agent ended in one round."""

    agent_id: str
    round: int
    attempt: int
    state: str
    content: str | None
    truncated: bool
    answer: Ballot | None
    confidence: float | None
    reasoning: str | None
    failure: OutputFailure | None
    started_at: str | None
    finished_at: str | None
    duration_seconds: float
    model_asked: str | None
    model: str | None
    fell_back: bool
    usage: TokenUsage
    leaf_index: int
    leaf_hash: str
    erased: bool
