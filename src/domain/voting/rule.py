"""Rules: which ones turn ballots of a kind into an outcome, and the one call that does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors.deliberation import FieldProblem
from domain.models.outcome import Outcome
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Ballot
from domain.voting.median import median_outcome
from domain.voting.plurality import plurality_outcome
from domain.voting.threshold import threshold_outcome

__all__ = ["Rule", "RuleKind", "apply_rule", "default_rule", "rules_for"]


class RuleKind(StrEnum):
    """The rules that can be applied."""

    PLURALITY = "plurality"
    THRESHOLD = "threshold"
    MEDIAN = "median"


_RULES: dict[AnswerKind, tuple[RuleKind, ...]] = {
    AnswerKind.CHOICE: (RuleKind.PLURALITY, RuleKind.THRESHOLD),
    AnswerKind.VERDICT: (RuleKind.THRESHOLD, RuleKind.PLURALITY),
    AnswerKind.RANKING: (RuleKind.PLURALITY,),
    AnswerKind.SCORE: (RuleKind.MEDIAN,),
    AnswerKind.PROBABILITY: (RuleKind.MEDIAN,),
    AnswerKind.NUMBER: (RuleKind.MEDIAN,),
}

_DEFAULT_FRACTION = 0.5


@dataclass(frozen=True, slots=True)
class Rule:
    """How ballots become an outcome; `fraction` is the share of all asked that a threshold wants."""

    kind: RuleKind
    fraction: float | None = None

    def problems(self, answer: AnswerFormat, pointer: str = "/rule") -> list[FieldProblem]:
        """What keeps this rule from being applied to answers of that format."""
        allowed = rules_for(answer.kind)
        if self.kind not in allowed:
            names = ", ".join(rule.value for rule in allowed) or "no rule yet"
            return [FieldProblem(f"{pointer}/kind", f"answers of kind {answer.kind.value} are counted by {names}")]
        if self.fraction is None:
            return []
        if self.kind is not RuleKind.THRESHOLD:
            return [FieldProblem(f"{pointer}/fraction", f"the rule {self.kind.value} takes no fraction")]
        if not 0 < self.fraction <= 1:
            return [FieldProblem(f"{pointer}/fraction", "must be more than 0 and at most 1")]
        return []


def rules_for(kind: AnswerKind) -> tuple[RuleKind, ...]:
    """The rules that answers of that kind can be counted by, the default first."""
    return _RULES.get(kind, ())


def default_rule(kind: AnswerKind) -> Rule | None:
    """The rule that is used when none is named, or None when answers of that kind cannot be counted."""
    allowed = rules_for(kind)
    if not allowed:
        return None
    return Rule(allowed[0], _DEFAULT_FRACTION if allowed[0] is RuleKind.THRESHOLD else None)


def apply_rule(rule: Rule, answer: AnswerFormat, ballots: Sequence[Ballot], *, asked: int) -> Outcome:
    """The outcome of these ballots, abstentions included, when `asked` agents were asked. Pure and exact."""
    if rule.kind is RuleKind.MEDIAN:
        return median_outcome(ballots)
    options = ("yes", "no") if answer.kind is AnswerKind.VERDICT else answer.options
    if rule.kind is RuleKind.PLURALITY:
        return plurality_outcome(ballots, options)
    return threshold_outcome(ballots, options, asked=asked, fraction=rule.fraction or _DEFAULT_FRACTION)
