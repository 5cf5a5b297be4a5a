"""Reads resolved questions that are kept in memory, as the databases do."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from application.ports.deliberation_repository import DeliberationReader
from application.ports.witness_log import LoggedEntry
from application.services.resolution_entry import read_resolution
from domain.analysis.scoring import given_answers
from domain.analysis.track_record import Resolved
from domain.voting.ballot import Answer
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog

__all__ = ["InMemoryResolutionHistory"]


class InMemoryResolutionHistory:
    """`ResolutionHistory` over whatever reader and log have at the moment of reading."""

    def __init__(self, reader: DeliberationReader, log: InMemoryWitnessLog) -> None:
        self._reader = reader
        self._log = log

    async def latest(self, deliberation_id: str) -> LoggedEntry | None:
        """As in `ResolutionHistory`."""
        told = self._log.resolutions.get(deliberation_id, ())
        return told[-1] if told else None

    async def resolved(self, *, key_name: str | None, orchestrator: str, limit: int) -> Sequence[Resolved]:
        """As in `ResolutionHistory`."""
        latest = sorted((told[-1] for told in self._log.resolutions.values()), key=lambda each: -each.index)
        found: list[Resolved] = []
        for entry in latest:
            own = str(entry.deliberation_id)
            kept = await self._reader.get(own)
            if kept is None or kept.key_name != key_name or kept.orchestrator != orchestrator or len(found) >= limit:
                continue
            answer = kept.specification.question.answer
            records = [record for round_ in kept.rounds for record in round_.records]
            truth, _ = read_resolution(own, entry, answer)
            found.append(Resolved(own, answer, truth, tuple(given_answers(kept.specification, records))))
        return found

    async def truths(self, deliberation_ids: Collection[str], *, until: datetime) -> Mapping[str, Answer]:
        """As in `ResolutionHistory`."""
        found: dict[str, Answer] = {}
        for own in deliberation_ids:
            kept = await self._reader.get(own) if own in self._log.resolutions else None
            if kept is None:
                continue
            for entry in self._log.resolutions[own]:
                truth, at = read_resolution(own, entry, kept.specification.question.answer)
                if at <= until:
                    found[own] = truth
        return found
