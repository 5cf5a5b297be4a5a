"""Outcomes of every rule, computed again from what the log holds: an outcome that says otherwise is refused."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from application.services.verification.tally import compare_outcome, read_synthesis, recompute
from application.services.verification.terms import Terms
from domain.errors.witness import VerificationRefusedError
from domain.models.budget import Quorum
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot
from domain.voting.lottery import drawn
from domain.voting.rule import Rule, RuleKind, apply_rule
from domain.witness.result_documents import outcome_document

RANKING = AnswerFormat(AnswerKind.RANKING, ("a", "b", "c"))
NUMBER = AnswerFormat(AnswerKind.NUMBER)
TEXT = AnswerFormat(AnswerKind.TEXT)
ORDERS = (("a", "b"), ("b", "c"), ("c", "a"))


def ballots(*answers: Answer) -> list[Ballot]:
    return [Ballot(f"agent-{place}", answer, 0.7) for place, answer in enumerate(answers)]


def terms(rule: Rule, answer: AnswerFormat, *, seed: int | None = 5) -> Terms:
    return Terms(answer, Quorum(), {}, rule, None, seed)


def recorded(rule: Rule, answer: AnswerFormat, given: Sequence[Ballot]) -> dict[str, Any]:
    outcome = apply_rule(rule, answer, given, asked=len(given), seed=5)
    document = outcome_document(outcome)
    document["blind_tally"] = document["tally"]
    return document


def check(document: dict[str, Any], rule: Rule, answer: AnswerFormat, given: Sequence[Ballot], **more: Any) -> None:
    """Compare with what is computed; of rules that agree elsewhere only the recorded list is asked for here."""
    computed = recompute(terms(rule, answer, **more), given, asked=len(given), synthesis=read_synthesis(document, 1))
    assert computed is not None
    document["robustness"]["rules_agreeing"] = list(computed.rules_agreeing)
    compare_outcome(document, computed, answer, 1)


LOTTERY = Rule(RuleKind.COPELAND, tie_break="lottery")
WEIGHTED = Rule(RuleKind.BORDA, weighted_by="confidence")


@pytest.mark.parametrize(
    ("rule", "answer", "answers", "path", "value"),
    [
        (LOTTERY, RANKING, ORDERS, ("decision",), "another"),
        (LOTTERY, RANKING, ORDERS, ("tie_break",), "borda"),
        (LOTTERY, RANKING, ORDERS, ("places",), [1, 2, 3]),
        (WEIGHTED, RANKING, ORDERS, ("tally", "a"), 2.2),
        (WEIGHTED, RANKING, (*ORDERS, ("a",)), ("margin",), 1),
        (Rule(RuleKind.MEDIAN), NUMBER, (1.0, 1.0, 2.0, 2.0, 900.0), ("outliers",), ["agent-0"]),
        (Rule(RuleKind.MEDIAN), NUMBER, (1.0, 1.0, 2.0, 2.0, 900.0), ("decision",), 2.5),
        (Rule(RuleKind.SYNTHESIS), TEXT, ("one", "one", "two"), ("decision",), "cluster 2"),
        (Rule(RuleKind.SYNTHESIS), TEXT, ("one", "one", "two"), ("tally", "cluster 1"), 3),
        (Rule(RuleKind.SYNTHESIS), TEXT, ("one", "one", "two"), ("synthesis", "clusters", 0, "agents"), ["agent-0"]),
        (Rule(RuleKind.SYNTHESIS), TEXT, ("one", "one", "two"), ("synthesis", "claims", 0, "agents"), []),
        (Rule(RuleKind.SYNTHESIS), TEXT, ("one", "one", "two"), ("synthesis", "claims", 0, "source"), 9),
    ],
)
def test_an_outcome_is_what_the_ballots_give_and_nothing_else(
    rule: Rule, answer: AnswerFormat, answers: Sequence[Answer], path: tuple[str | int, ...], value: object
) -> None:
    given = ballots(*answers)
    document = recorded(rule, answer, given)
    check(copy.deepcopy(document), rule, answer, given)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises((VerificationRefusedError, ValueError)):
        check(document, rule, answer, given)


def test_a_lottery_under_another_seed_is_another_outcome() -> None:
    given = ballots(*ORDERS)
    document = recorded(LOTTERY, RANKING, given)
    # Under 5 and 6 different options are drawn.
    assert drawn(RANKING.options, 5)[0] != drawn(RANKING.options, 6)[0]
    with pytest.raises(VerificationRefusedError, match="decision"):
        check(document, LOTTERY, RANKING, given, seed=6)


def test_texts_are_counted_by_their_clusters_without_a_word_of_them() -> None:
    document = recorded(Rule(RuleKind.SYNTHESIS), TEXT, ballots("one", "one", "two"))
    check(document, Rule(RuleKind.SYNTHESIS), TEXT, ballots("aa", "bb", "cc"))


def test_outcomes_of_an_earlier_version_lack_places_and_outliers() -> None:
    given = ballots(*ORDERS, ("a",))
    document = recorded(Rule(RuleKind.PLURALITY), RANKING, given)
    del document["places"]
    check(document, Rule(RuleKind.PLURALITY), RANKING, given)


@pytest.mark.parametrize(
    ("rule", "answer", "answers"),
    [
        (Rule(RuleKind.THRESHOLD, 0.4), AnswerFormat(AnswerKind.CHOICE, ("a", "b", "c")), ("a", "a", "b", "c", None)),
        (Rule(RuleKind.PLURALITY, tie_break="lottery"), AnswerFormat(AnswerKind.CHOICE, ("a", "b")), ("a", "b")),
    ],
)
def test_the_agreed_rule_agrees_with_itself_whatever_it_was_agreed_with(
    rule: Rule, answer: AnswerFormat, answers: Sequence[Answer]
) -> None:
    computed = recompute(terms(rule, answer), ballots(*answers), asked=len(answers), synthesis=None)
    assert computed is not None
    assert computed.decision is not None
    assert rule.kind.value in computed.rules_agreeing
