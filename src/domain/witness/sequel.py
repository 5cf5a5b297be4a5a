"""Entries that follow the end of a deliberation: what they say of a recount and of a resolution, the texts apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.analysis.scoring import Scores, recorded_truth
from domain.models.deliberation import Specification
from domain.models.outcome import Outcome
from domain.voting.ballot import Answer
from domain.voting.rule import Rule
from domain.witness.entry import recorded_rule
from domain.witness.result_documents import recorded_outcome

__all__ = ["RECOUNTED", "RESOLVED", "recounted_facts", "resolved_facts"]

RECOUNTED = "recounted"
RESOLVED = "resolved"


def recounted_facts(specification: Specification, rule: Rule, outcome: Outcome | None) -> dict[str, Any]:
    """The rule in full, and what it makes of the ballots, as `deliberation.ended` has it; null where it may decide nothing."""
    return {
        "rule": recorded_rule(rule, _members(specification)),
        "outcome": None if outcome is None else recorded_outcome(outcome, specification.question.answer),
    }


def resolved_facts(specification: Specification, truth: Answer, scores: Scores) -> dict[str, Any]:
    """The truth, as answers are recorded, the score of the outcome, and those of the members in their order."""
    return {
        "answer": recorded_truth(specification.question.answer, truth),
        "brier": scores.brier,
        "scores": [scores.agents.get(agent_id) for agent_id in _members(specification)],
    }


def _members(specification: Specification) -> Sequence[str]:
    return [agent.id for agent in specification.roster.agents]
