"""Says how right agents and models were where the truth is known, and weighs their votes by it where that is asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from application.ports.resolution_history import ResolutionHistory
from domain.analysis.track_record import TrackRecord
from domain.models.deliberation import Specification
from domain.voting.rule import WEIGHTED_BY_RECORD

__all__ = ["MOST_RESOLVED", "TrackRecordService"]

MOST_RESOLVED = 200
"""So many resolved questions are looked at, those that were resolved last."""


class TrackRecordService:
    """A record is that of one API key and one orchestrator: who is right for one caller, may be somebody else for another."""

    def __init__(self, history: ResolutionHistory, *, orchestrator: str) -> None:
        """`orchestrator` is the one whose agents are asked here."""
        self.history = history
        self._orchestrator = orchestrator

    async def of(
        self, *, key_name: str | None, orchestrator: str | None = None, besides: str | None = None
    ) -> TrackRecord:
        """The record as it stands, without the deliberation `besides`. Raises `DependencyUnavailableError`."""
        resolved = await self.history.resolved(
            key_name=key_name, orchestrator=orchestrator or self._orchestrator, limit=MOST_RESOLVED
        )
        # Exact sums over thousands of answers take longer than an event loop should be held.
        return await asyncio.to_thread(TrackRecord.of, [each for each in resolved if each.deliberation_id != besides])

    async def weighed(
        self,
        specification: Specification,
        *,
        key_name: str | None,
        orchestrator: str | None = None,
        besides: str | None = None,
    ) -> Specification:
        """The same with what was learned of its agents in its rule, where that weighs by the record; else as it is."""
        rule = specification.rule
        if rule.weighted_by != WEIGHTED_BY_RECORD or rule.weights:
            return specification
        record = await self.of(key_name=key_name, orchestrator=orchestrator, besides=besides)
        weights = {agent.id: record.weight(agent.id, agent.model) for agent in specification.roster.agents}
        return replace(specification, rule=replace(rule, weights=weights))
