"""The port through which earlier ballots of the same agents are read, for what only many questions together can tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from domain.analysis.past import PastBallots

__all__ = ["BallotHistory", "Earlier"]


@dataclass(frozen=True, slots=True)
class Earlier:
    """Which deliberations are asked for: completed no later than `until` under the same key and orchestrator, in which `agent_id` was
    asked, without the deliberation `besides`. At most `limit`, those that were accepted last.
    """

    agent_id: str
    key_name: str | None
    orchestrator: str
    until: datetime
    besides: str
    limit: int


class BallotHistory(Protocol):
    """Reads ballots of deliberations that have ended. They are what is stored, compared with no entry: for statistics, not for show.

    Raises `DependencyUnavailableError` when the store is away.
    """

    async def earlier(self, asked: Earlier) -> Sequence[str]:
        """The ids of those deliberations, oldest first. Only the last 2,000 completed ones are looked at."""
        ...

    async def ballots(self, deliberation_ids: Collection[str]) -> Sequence[PastBallots]:
        """The ballots of these, in any order; those that are not there are left out."""
        ...
