"""How one agent that was asked for its opinion ended: exactly one outcome, as it is recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.models.budget import Usage
from domain.models.roll_call import AgentState

__all__ = ["Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking `who` in `tick`.

    `by` is `thinking` or `inference`; `who` is an agent's id there, and a row of features as one word here. An `opinion` from 0 to 1
    is there where the outcome is `answered`. `usage` is None where the call may have been paid for and nobody knows.
    """

    by: str
    tick: int
    who: int
    outcome: AgentState
    opinion: float | None = None
    note: str = ""
    problem: str = ""
    model: str | None = None
    usage: Usage | None = field(default_factory=Usage)
