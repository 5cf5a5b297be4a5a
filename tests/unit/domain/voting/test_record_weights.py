"""Votes that weigh what was learned of their agents."""

from __future__ import annotations

import pytest

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import WEIGHTED_BY_RECORD, Rule, RuleKind, apply_rule

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("a", "b"))
RANKING = AnswerFormat(AnswerKind.RANKING, ("a", "b", "c"))
SCORE = AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=10)


def ballots(*answers: Answer, confidence: float | None = None) -> list[Ballot]:
    return [Ballot(f"v{place}", answer, confidence) for place, answer in enumerate(answers)]


def weighed(kind: RuleKind, weights: dict[str, int], *, tie_break: str | None = None) -> Rule:
    return Rule(kind, weighted_by=WEIGHTED_BY_RECORD, weights=weights, tie_break=tie_break)


def test_votes_count_their_weights_and_not_their_confidence() -> None:
    rule = weighed(RuleKind.PLURALITY, {"v0": 150, "v1": 60, "v2": 60})
    outcome = apply_rule(rule, CHOICE, ballots("a", "b", "b", confidence=0.9), asked=3)
    assert outcome.tally == {"a": 1.5, "b": 1.2}
    assert outcome.decision == "a"


def test_whoever_has_no_weight_has_a_whole_vote() -> None:
    outcome = apply_rule(weighed(RuleKind.PLURALITY, {"v0": 50}), CHOICE, ballots("a", "b"), asked=2)
    assert outcome.tally == {"a": 0.5, "b": 1}


def test_a_tie_is_broken_by_another_rule_with_the_same_weights() -> None:
    rule = weighed(RuleKind.PLURALITY, {"v0": 100, "v1": 100, "v2": 10}, tie_break="borda")
    outcome = apply_rule(rule, RANKING, ballots(("a",), ("b",), ("c", "b")), asked=3)
    assert (outcome.decision, outcome.tie_break) == ("b", "borda")


def test_a_weighted_median_counts_the_weights() -> None:
    outcome = apply_rule(
        weighed(RuleKind.MEDIAN, {"v0": 200, "v1": 50, "v2": 50}), SCORE, ballots(1.0, 8.0, 9.0), asked=3
    )
    assert outcome.decision == 1


@pytest.mark.parametrize("what", ["merit", "", "Record"])
def test_votes_weigh_by_nothing_else(what: str) -> None:
    (problem,) = Rule(RuleKind.PLURALITY, weighted_by=what).problems(CHOICE)
    assert (problem.pointer, problem.message) == ("/rule/weighted_by", "must be confidence or record")
