"""What the entry of a resolution says: how a question turned out, and since when that is known."""

from __future__ import annotations

import json
from datetime import datetime

from application.ports.witness_log import LoggedEntry
from domain.analysis.scoring import truth_of
from domain.errors.deliberation import RecordMismatchError
from domain.models.question import AnswerFormat
from domain.voting.ballot import Answer
from domain.witness.merkle import leaf_hash
from domain.witness.sequel import RESOLVED

__all__ = ["read_resolution"]


def read_resolution(deliberation_id: str, logged: LoggedEntry, answer: AnswerFormat) -> tuple[Answer, datetime]:
    """The truth and when it was told. Raises `RecordMismatchError` for an entry that nobody has recorded so."""
    found = leaf_hash(logged.entry)
    mismatch = RecordMismatchError(
        deliberation_id=deliberation_id,
        part="resolution",
        recorded=logged.leaf_hash.hex(),
        found=found.hex(),
        index=logged.index,
    )
    if found != logged.leaf_hash:
        raise mismatch
    try:
        document = json.loads(logged.entry)
        told = document["deliberation_id"], document["type"]
        truth, at = truth_of(answer, document["answer"]), datetime.fromisoformat(document["at"])
    except (ValueError, TypeError, LookupError) as error:
        raise mismatch from error
    if told != (deliberation_id, RESOLVED):
        raise mismatch
    return truth, at
