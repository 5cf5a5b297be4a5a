"""What a search for common ground has come to, as JSON documents: the statement found, and those it was found among."""

from __future__ import annotations

from typing import Any

from domain.models.deliberation import Deliberation
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.round import AgentRecord
from domain.protocols.common_ground import final_statement, statements_until
from domain.protocols.proceedings import Proceedings

__all__ = ["proceedings_of", "statement_document", "statements_document"]


def proceedings_of(deliberation: Deliberation) -> Proceedings | None:
    """What was said in a search for common ground, None for anything else."""
    if deliberation.specification.protocol.kind is not ProtocolKind.COMMON_GROUND or not deliberation.rounds:
        return None
    return Proceedings(deliberation, (record for round_ in deliberation.rounds for record in round_.records))


def statement_document(deliberation: Deliberation, proceedings: Proceedings | None) -> dict[str, Any] | None:
    """The statement that a search for common ground has found: of texts the one that was decided for."""
    found = None if proceedings is None else final_statement(proceedings)
    if found is None:
        return None
    label, record = found
    is_text = deliberation.specification.question.answer.kind is AnswerKind.TEXT
    if is_text and (deliberation.outcome is None or deliberation.outcome.decision != label):
        return None
    return _drafted(label, record)


def statements_document(proceedings: Proceedings | None) -> list[dict[str, Any]]:
    """All that were put to everybody in the last ranking, so that no label stands without its text."""
    if proceedings is None or proceedings.last is None:
        return []
    return [_drafted(label, record) for label, record in statements_until(proceedings, proceedings.last).items()]


def _drafted(label: str, record: AgentRecord) -> dict[str, Any]:
    return {"label": label, "agent_id": record.agent_id, "round": record.round_number, "text": record.answer}
