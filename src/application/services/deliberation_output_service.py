"""The only way to read an agent's output: what is committed, and only while it still matches its leaf in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from application.ports.deliberation_repository import DeliberationReader, StoredRecord
from application.ports.metrics import Metrics, NullMetrics
from application.services.record_check import require_witnessed
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation
from domain.models.question import AnswerFormat
from domain.models.round import AgentRecord

__all__ = ["DeliberationOutputService", "WitnessedOutput"]


# As many as are compared in about half a millisecond.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class WitnessedOutput:
    """A record that matches its leaf. Once the texts of its deliberation are `erased`, those it had are None."""

    record: AgentRecord
    leaf_index: int
    leaf_hash: bytes
    erased: bool


class DeliberationOutputService:
    """Shows no output that is not committed, and none that differs in anything from what was recorded."""

    def __init__(self, reader: DeliberationReader, *, metrics: Metrics | None = None) -> None:
        self._reader = reader
        self._metrics = metrics if metrics is not None else NullMetrics()

    async def outputs(self, deliberation_id: str, *, round_number: int | None = None) -> Sequence[WitnessedOutput]:
        """The records of one round, or of all, in the order of their commit.

        Raises `RecordMismatchError` when the entry does not hash to its leaf, or the stored record is not what the entry says.
        """
        stored = await self._reader.records(deliberation_id, round_number=round_number)
        if not stored:
            return []
        # Read second and compared as a whole, so that records without texts are shown only where the log says they are erased.
        deliberation = await self._reader.get(deliberation_id)
        return [
            self._checked(
                deliberation_id,
                item,
                AnswerFormat()
                if deliberation is None
                else deliberation.specification.answers_in(item.record.round_number),
            )
            for item in stored
        ]

    async def later_outputs(self, deliberation: Deliberation, *, after: int) -> Sequence[WitnessedOutput]:
        """Those of a deliberation at work whose leaf follows `after`, in the order of their commit, each compared with its leaf alone.

        It is for who has read the deliberation and follows it: nothing that was read before is read again, unless texts of it are
        erased. Raises `RecordMismatchError`.
        """
        stored = await self._reader.records(deliberation.id, after=after)
        found = []
        for number, item in enumerate(stored):
            if item.salts is None:
                return [each for each in await self.outputs(deliberation.id) if each.leaf_index > after]
            answers = deliberation.specification.answers_in(item.record.round_number)
            found.append(self._checked(deliberation.id, item, answers))
            if number % _AT_ONCE == _AT_ONCE - 1:
                # Agents that are still at work go first.
                await asyncio.sleep(0)
        return found

    def _checked(self, deliberation_id: str, item: StoredRecord, answers: AnswerFormat) -> WitnessedOutput:
        erased = item.salts is None
        try:
            require_witnessed(deliberation_id, item, answers, erased=erased)
        except RecordMismatchError:
            self._metrics.record_mismatched()
            raise
        return WitnessedOutput(item.record, item.witnessed.index, item.witnessed.leaf_hash, erased=erased)
