"""Rules as a request names them: every parameter reaches the domain, and each bad one is refused where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from api.requests import DeliberationRequest
from domain.errors.deliberation import InvalidSpecificationError
from domain.models.deliberation import Specification
from domain.voting.rule import Rule, RuleKind
from infrastructure.rosters.file_roster_source import FileRosterSource

RANKING = {"kind": "ranking", "options": ["a", "b", "c"]}
CHOICE = {"kind": "choice", "options": ["a", "b"]}


def specified(answer: dict[str, Any], rule: dict[str, Any] | None = None, **more: object) -> Specification:
    body = {"question": "Which?", "answer": answer, **({} if rule is None else {"rule": rule}), **more}
    rosters = FileRosterSource(None)
    return DeliberationRequest.read(body, rosters).specification(rosters, draw_seed=lambda: 99)


def pointers(answer: dict[str, Any], rule: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidSpecificationError) as error:
        specified(answer, rule)
    return [problem.pointer for problem in error.value.problems]


def test_every_parameter_of_a_rule_reaches_the_domain() -> None:
    rule = {"kind": "schulze", "tie_break": "borda", "strength": "margins", "weighted_by": "confidence"}
    assert specified(RANKING, rule).rule == Rule(RuleKind.SCHULZE, None, "borda", "margins", "confidence")


@pytest.mark.parametrize(
    ("answer", "rule", "expected"),
    [
        (RANKING, None, Rule(RuleKind.SCHULZE)),
        ({"kind": "text"}, None, Rule(RuleKind.SYNTHESIS)),
        ({"kind": "approval", "options": ["a", "b"]}, None, Rule(RuleKind.APPROVAL)),
        (CHOICE, {"kind": "threshold"}, Rule(RuleKind.THRESHOLD, 0.5)),
        ({"kind": "number"}, {"kind": "trimmed_mean"}, Rule(RuleKind.TRIMMED_MEAN, 0.1)),
        ({"kind": "number"}, {"kind": "trimmed_mean", "fraction": 0.2}, Rule(RuleKind.TRIMMED_MEAN, 0.2)),
        (CHOICE, {"kind": "plurality", "tie_break": "none"}, Rule(RuleKind.PLURALITY)),
        (CHOICE, {"weighted_by": "confidence"}, Rule(RuleKind.PLURALITY, weighted_by="confidence")),
    ],
)
def test_what_is_not_said_takes_its_default(
    answer: dict[str, Any], rule: dict[str, Any] | None, expected: Rule
) -> None:
    assert specified(answer, rule).rule == expected


def test_a_lottery_has_the_seed_that_was_given_or_one_that_is_drawn() -> None:
    lottery = {"kind": "plurality", "tie_break": "lottery"}
    assert specified(CHOICE, lottery, seed=5).seed == 5
    assert specified(CHOICE, lottery).seed == 99
    assert specified(CHOICE).seed is None


def test_a_lottery_without_a_seed_is_not_run() -> None:
    spec = specified(CHOICE, {"kind": "plurality"})
    bare = Specification(spec.question, spec.roster, Rule(RuleKind.PLURALITY, tie_break="lottery"))
    with pytest.raises(InvalidSpecificationError) as error:
        bare.check()
    assert [problem.pointer for problem in error.value.problems] == ["/seed"]


@pytest.mark.parametrize(
    ("answer", "rule", "pointer"),
    [
        (RANKING, {"kind": "median"}, "/rule/kind"),
        (RANKING, {"kind": "kemeny"}, "/rule/kind"),
        (CHOICE, {"kind": "approval"}, "/rule/kind"),
        ({"kind": "text"}, {"kind": "plurality"}, "/rule/kind"),
        ({"kind": "number"}, {"kind": "mean_odds"}, "/rule/kind"),
        (CHOICE, {"kind": "plurality", "fraction": 0.5}, "/rule/fraction"),
        ({"kind": "number"}, {"kind": "trimmed_mean", "fraction": 0.5}, "/rule/fraction"),
        (CHOICE, {"kind": "plurality", "tie_break": "plurality"}, "/rule/tie_break"),
        (CHOICE, {"kind": "plurality", "tie_break": 1}, "/rule/tie_break"),
        (RANKING, {"kind": "borda", "strength": "margins"}, "/rule/strength"),
        (RANKING, {"kind": "schulze", "strength": "votes"}, "/rule/strength"),
        (RANKING, {"kind": "schulze", "weighted_by": "age"}, "/rule/weighted_by"),
        (RANKING, {"kind": "schulze", "seed": 1}, "/rule/seed"),
    ],
)
def test_a_bad_parameter_is_named_where_it_stands(answer: dict[str, Any], rule: dict[str, Any], pointer: str) -> None:
    assert pointers(answer, rule) == [pointer]


def test_look_alike_options_are_refused_where_the_second_stands() -> None:
    answer = {"kind": "choice", "options": ["yes", "no", "y\u0435s"]}
    assert pointers(answer, {"kind": "plurality"}) == ["/answer/options/2"]
