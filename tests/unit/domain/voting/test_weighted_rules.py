"""Votes that count as much as their agents are sure, in whole hundredths."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from domain.models.outcome import Outcome
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import RANKING_RULES, count

OPTIONS = ("yes", "no")


def sure(*votes: tuple[Answer, float | None]) -> list[Ballot]:
    return [Ballot(f"archon-{n}", answer, confidence) for n, (answer, confidence) in enumerate(votes)]


def weighted(kind: str, given: Sequence[Ballot], *, answers: str = "choice", fraction: float | None = None) -> Outcome:
    return count(Rule(RuleKind(kind), fraction, weighted_by="confidence"), OPTIONS, given, kind=answers)


def test_one_who_is_sure_outweighs_two_who_are_not() -> None:
    outcome = weighted("plurality", sure(("yes", 0.9), ("no", 0.4), ("no", 0.3)))
    assert (outcome.decision, dict(outcome.tally), outcome.margin) == ("yes", {"yes": 0.9, "no": 0.7}, 0.2)


def test_confidences_that_add_up_to_the_same_are_a_tie() -> None:
    # 0.1 + 0.2 is more than 0.3 in binary arithmetic.
    assert weighted("plurality", sure(("yes", 0.1), ("yes", 0.2), ("no", 0.3))).status.value == "tied"


def test_who_does_not_say_how_sure_counts_a_half() -> None:
    assert dict(weighted("plurality", sure(("yes", None), ("no", 1.0))).tally) == {"yes": 0.5, "no": 1}


def test_nobody_who_is_sure_of_anything_decides_nothing() -> None:
    assert weighted("plurality", sure(("yes", 0.0), ("no", 0.0))).status.value == "no_majority"


def test_a_weighted_threshold_still_counts_everyone_asked_as_a_whole() -> None:
    half_sure = sure(("yes", 0.5), ("yes", 0.5))
    assert weighted("threshold", half_sure, fraction=0.5).decision == "yes"
    assert weighted("threshold", half_sure, fraction=0.51).status.value == "no_majority"


def test_approvals_are_weighted() -> None:
    given = sure((("yes",), 0.2), (("no",), 0.9), (("yes", "no"), 0.5))
    assert dict(weighted("approval", given, answers="approval").tally) == {"yes": 0.7, "no": 1.4}


@pytest.mark.parametrize("kind", RANKING_RULES)
def test_rankings_are_weighted(kind: str) -> None:
    given = sure((("yes", "no"), 0.2), (("yes", "no"), 0.2), (("no", "yes"), 0.5))
    assert count(kind, OPTIONS, given).decision == "yes"
    assert weighted(kind, given, answers="ranking").decision == "no"


@pytest.mark.parametrize("kind", RANKING_RULES)
def test_equal_confidence_decides_as_no_weights_do(kind: str) -> None:
    given = sure((("yes", "no"), 0.7), (("yes",), 0.7), (("no", "yes"), 0.7))
    assert weighted(kind, given, answers="ranking").decision == count(kind, OPTIONS, given).decision
