"""The only way to read an agent's output: what is committed, and only while it still matches its leaf in the log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from application.ports.deliberation_repository import DeliberationReader, StoredRecord
from application.ports.metrics import Metrics, NullMetrics
from domain.errors.deliberation import RecordMismatchError
from domain.models.question import AnswerFormat
from domain.models.round import AgentRecord
from domain.witness.entry import agent_ended
from domain.witness.merkle import leaf_hash

__all__ = ["DeliberationOutputService", "WitnessedOutput"]


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
        deliberation = await self._reader.get(deliberation_id)
        answers = AnswerFormat() if deliberation is None else deliberation.specification.question.answer
        return [self._checked(deliberation_id, item, answers) for item in stored]

    def _checked(self, deliberation_id: str, item: StoredRecord, answers: AnswerFormat) -> WitnessedOutput:
        witnessed, salts = item.witnessed, item.salts
        found = leaf_hash(witnessed.entry)
        if found != witnessed.leaf_hash or not _says(witnessed.entry, deliberation_id, item, answers):
            self._metrics.record_mismatched()
            raise RecordMismatchError(
                deliberation_id=deliberation_id,
                agent_id=item.record.agent_id,
                round_number=item.record.round_number,
                recorded=witnessed.leaf_hash.hex(),
                found=found.hex(),
            )
        return WitnessedOutput(item.record, witnessed.index, witnessed.leaf_hash, erased=salts is None)


def _says(entry: bytes, deliberation_id: str, item: StoredRecord, answers: AnswerFormat) -> bool:
    """Whether the entry is the one that this record makes with these salts."""
    salts = item.salts
    try:
        recorded = json.loads(entry)
        expected = agent_ended(
            deliberation_id, item.record, answers, salts=lambda size: (salts or b"").ljust(size, b"\x00")
        )
    except ValueError:
        # An entry that is no JSON, or an answer that is none of the options, can only come from a changed row.
        return False
    if not isinstance(recorded, dict):
        return False
    made = expected.document
    return _without_texts(recorded) == _without_texts(made) if salts is None else bool(recorded == made)


def _without_texts(document: dict[str, Any]) -> dict[str, Any]:
    failure, answer = document.get("failure"), document.get("answer")
    kind = failure.get("kind") if isinstance(failure, dict) else failure
    rest = {"content": None, "reasoning": None, "failure": kind, "answer": None if isinstance(answer, dict) else answer}
    return {**document, **rest}
