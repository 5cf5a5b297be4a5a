"""The roll call: how each agent that was asked ended, with nobody dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["AgentState", "RollCall"]


class AgentState(StrEnum):
    """How one agent ended in a round: exactly one of these."""

    ANSWERED = "answered"
    ABSTAINED = "abstained"
    INVALID = "invalid"
    TIMED_OUT = "timed_out"
    THROTTLED = "throttled"
    FAILED = "failed"
    OVER_BUDGET = "over_budget"
    CANCELLED = "cancelled"
    HALTED = "halted"

    @property
    def took_part(self) -> bool:
        """Whether the agent answered or abstained; everyone else failed and has to be named."""
        return self is AgentState.ANSWERED or self is AgentState.ABSTAINED


@dataclass(frozen=True, slots=True)
class RollCall:
    """Counts by state; `asked` is their sum by construction, so it can never disagree with them."""

    counts: Mapping[AgentState, int] = field(default_factory=dict)

    @classmethod
    def of(cls, states: Iterable[AgentState]) -> RollCall:
        """The roll call of agents that ended in these states."""
        counts: dict[AgentState, int] = {}
        for state in states:
            counts[state] = counts.get(state, 0) + 1
        return cls(counts)

    def __getitem__(self, state: AgentState) -> int:
        return self.counts.get(state, 0)

    @property
    def asked(self) -> int:
        """How many agents were asked."""
        return sum(self.counts.values())

    @property
    def took_part(self) -> int:
        """How many answered or abstained."""
        return self[AgentState.ANSWERED] + self[AgentState.ABSTAINED]

    @property
    def failed(self) -> int:
        """How many neither answered nor abstained."""
        return self.asked - self.took_part

    def as_counts(self) -> dict[str, int]:
        """`{"asked": n, "answered": n, ...}` with every state present."""
        return {"asked": self.asked, **{state.value: self[state] for state in AgentState}}

    @classmethod
    def from_counts(cls, document: Mapping[str, int]) -> RollCall:
        """The inverse of `as_counts`; `asked` is not read but derived again."""
        return cls({state: document[state.value] for state in AgentState if document.get(state.value)})
