"""A recount: the recorded ballots of a deliberation that has ended, counted by another rule than the one that was agreed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from domain.analysis.decision import decide
from domain.errors.deliberation import FieldProblem
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.outcome import Outcome
from domain.models.question import AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.voting.rule import Rule

__all__ = ["recount", "recount_problems"]

_ERASED = "(erased)"


def recount(deliberation: Deliberation, rule: Rule) -> Outcome | None:
    """What that rule makes of the ballots which counted at the end, each agent's last one of the right rounds. Pure.

    None where the deliberation was not completed: no rule makes a decision of what stayed below its quorum or was stopped. Texts are
    taken in the clusters that were recorded. Raises `ValueError` where these are not of those who answered.
    """
    if deliberation.status is not DeliberationStatus.COMPLETED or deliberation.outcome is None:
        return None
    records = [record for round_ in deliberation.rounds for record in round_.records]
    specification = replace(deliberation.specification, rule=rule)
    if specification.question.answer.kind is AnswerKind.TEXT and deliberation.erased:
        records = _spoken(records)
    asked = replace(deliberation, specification=specification)
    return decide(asked, records, synthesis=deliberation.outcome.synthesis)[1]


def recount_problems(specification: Specification, rule: Rule, pointer: str = "/rule") -> list[FieldProblem]:
    """What keeps this rule from counting the ballots of such a deliberation."""
    problems = rule.problems(specification.counted_answers, pointer)
    if not problems and rule.needs_seed and specification.seed is None:
        problems = [FieldProblem(f"{pointer}/tie_break", "the deliberation has no seed to draw from")]
    return problems


def _spoken(records: Sequence[AgentRecord]) -> list[AgentRecord]:
    """Whoever answered in a text that is erased since, has answered all the same."""
    return [
        replace(record, answer=_ERASED) if record.state is AgentState.ANSWERED and record.answer is None else record
        for record in records
    ]
