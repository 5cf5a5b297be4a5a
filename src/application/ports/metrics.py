"""The port for measurements, and the adapter that takes none."""

from __future__ import annotations

from typing import Protocol

from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState

__all__ = ["Metrics", "NullMetrics"]


class Metrics(Protocol):
    """Counts what happens. Calls neither wait nor raise; durations are seconds."""

    def agent_invoked(self) -> None:
        """An agent got its slot, or ended without one: counted in the same step as what it is balanced by."""
        ...

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        """An agent ended and its outcome is committed."""
        ...

    def slot_granted(self, waited_seconds: float) -> None:
        """An agent waited that long for its slot."""
        ...

    def pool_exhausted(self) -> None:
        """More was asked for than the pool or the queue takes."""
        ...

    def call_made(self, usage: Usage) -> None:
        """A call to a model used tokens and money."""
        ...

    def call_throttled(self) -> None:
        """A provider answered that it is asked too fast."""
        ...

    def call_over_budget(self) -> None:
        """A call was not made, because it could have taken more than may be spent."""
        ...

    def batch_ended(self, duration_seconds: float, failed_agents: int) -> None:
        """A round ended; failed agents neither answered nor abstained."""
        ...

    def deliberation_ended(self, status: DeliberationStatus, duration_seconds: float) -> None:
        """A deliberation reached its terminal state, and that is committed."""
        ...

    def record_mismatched(self) -> None:
        """Something stored did not match its leaf, and was not shown."""
        ...

    def groupthink_warned(self) -> None:
        """A deliberation ended as another of many in a row in which nearly all agreed."""
        ...

    def recounted(self) -> None:
        """The ballots of a deliberation were counted again by another rule, and that is committed."""
        ...

    def resolved(self) -> None:
        """It was recorded how a question turned out."""
        ...

    def topic_accepted(self, origin: str | None) -> None:
        """A deliberation was accepted whose topic came from there."""
        ...

    def topics_weighed(self, is_lopsided: bool) -> None:  # noqa: FBT001 - the one thing that is measured
        """It was looked at whether one source gives too many of the topics."""
        ...

    def log_appended(self, duration_seconds: float) -> None:
        """Entries were made durable."""
        ...


class NullMetrics:
    """Measures nothing."""

    def agent_invoked(self) -> None:
        """Ignored."""

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        """Ignored."""

    def slot_granted(self, waited_seconds: float) -> None:
        """Ignored."""

    def pool_exhausted(self) -> None:
        """Ignored."""

    def call_made(self, usage: Usage) -> None:
        """Ignored."""

    def call_throttled(self) -> None:
        """Ignored."""

    def call_over_budget(self) -> None:
        """Ignored."""

    def batch_ended(self, duration_seconds: float, failed_agents: int) -> None:
        """Ignored."""

    def deliberation_ended(self, status: DeliberationStatus, duration_seconds: float) -> None:
        """Ignored."""

    def record_mismatched(self) -> None:
        """Ignored."""

    def groupthink_warned(self) -> None:
        """Ignored."""

    def recounted(self) -> None:
        """Ignored."""

    def resolved(self) -> None:
        """Ignored."""

    def topic_accepted(self, origin: str | None) -> None:
        """Ignored."""

    def topics_weighed(self, is_lopsided: bool) -> None:  # noqa: FBT001 - the one thing that is measured
        """Ignored."""

    def log_appended(self, duration_seconds: float) -> None:
        """Ignored."""
