"""What agents answered, as it stands in the rows of their records, read for many deliberations at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, bindparam, select

from domain.models.roll_call import AgentState
from domain.voting.ballot import Answer
from infrastructure.persistence.documents import load
from infrastructure.persistence.tables import agent_records

__all__ = ["ANSWERS", "answer_of", "in_groups"]

# Below what SQLite takes as parameters of one statement, and little enough to be read between two writes.
_TOGETHER = 50

ANSWERS: Select[Any] = (
    select(
        agent_records.c.deliberation_id,
        agent_records.c.round_number,
        agent_records.c.agent_id,
        agent_records.c.model,
        agent_records.c.answer,
    )
    .where(
        agent_records.c.deliberation_id.in_(bindparam("these", expanding=True)),
        agent_records.c.state == AgentState.ANSWERED.value,
    )
    .order_by(agent_records.c.deliberation_id, agent_records.c.round_number)
)
"""Of the deliberations `these`: who answered in which round, without the texts."""


def in_groups(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many ids at a time as one statement takes."""
    for start in range(0, len(ids), _TOGETHER):
        yield ids[start : start + _TOGETHER]


def answer_of(stored: str | None) -> Answer:
    """The answer in that column."""
    answer = None if stored is None else load(stored)
    return tuple(answer) if isinstance(answer, list) else answer
