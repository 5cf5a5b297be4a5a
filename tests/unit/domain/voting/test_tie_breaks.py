"""Ties: honest unless another rule or a lottery was declared, and never broken by the order of anything."""

from __future__ import annotations

import hashlib

import pytest

from domain.voting.lottery import drawn
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import ballots, count, letters, ranked

OPTIONS = ("yes", "no", "weekends only")
EVEN = ballots("yes", "no", "yes", "no", "weekends only")
LOTTERY = Rule(RuleKind.PLURALITY, tie_break="lottery")


@pytest.mark.parametrize("tie_break", [None, "none"])
def test_without_a_declared_rule_a_tie_stays_one(tie_break: str | None) -> None:
    outcome = count(Rule(RuleKind.PLURALITY, tie_break=tie_break), OPTIONS, EVEN, kind="choice", seed=1)
    assert (outcome.status.value, outcome.decision, outcome.tie_break) == ("tied", None, None)


def test_a_lottery_draws_by_the_hash_of_seed_and_option() -> None:
    def place(option: str) -> bytes:
        return hashlib.sha256(f"41\0{option}".encode()).digest()

    outcome = count(LOTTERY, OPTIONS, EVEN, kind="choice", seed=41)
    assert outcome.decision == min(("yes", "no"), key=place)
    assert (outcome.status.value, outcome.tie_break, outcome.margin) == ("decided", "lottery", 0)


def test_a_lottery_draws_among_the_tied_only_and_differently_by_seed() -> None:
    won = {count(LOTTERY, OPTIONS, EVEN, kind="choice", seed=seed).decision for seed in range(40)}
    assert won == {"yes", "no"}


def test_the_order_of_options_does_not_change_what_is_drawn() -> None:
    for seed in range(10):
        one = count(LOTTERY, OPTIONS, EVEN, kind="choice", seed=seed).decision
        assert one == count(LOTTERY, OPTIONS[::-1], EVEN[::-1], kind="choice", seed=seed).decision


def test_what_else_could_be_drawn_does_not_change_the_order() -> None:
    assert [name for name in drawn(["c", "a", "b"], 5) if name != "b"] == drawn({"a", "c"}, 5)


def test_a_lottery_without_a_seed_breaks_nothing() -> None:
    outcome = count(LOTTERY, OPTIONS, EVEN, kind="choice")
    assert (outcome.status.value, outcome.tie_break) == ("tied", None)


def test_a_decision_is_not_drawn_for() -> None:
    outcome = count(LOTTERY, OPTIONS, ballots("yes", "yes", "no"), kind="choice", seed=1)
    assert (outcome.decision, outcome.tie_break) == ("yes", None)


def test_another_rule_breaks_a_tie_among_the_tied_alone() -> None:
    # A and B have two first places each; C, whom Borda likes best of all, is not among them.
    given = letters("2 ACB, 2 BCA, 1 CBA")
    outcome = count(Rule(RuleKind.PLURALITY, tie_break="borda"), "ABC", given)
    assert count("borda", "ABC", given).decision == "C"
    assert (outcome.decision, outcome.tie_break) == ("B", "borda")
    assert ranked(outcome) == [{"B"}, {"A"}, {"C"}]


def test_where_the_other_rule_is_tied_too_the_tie_stays() -> None:
    outcome = count(Rule(RuleKind.COPELAND, tie_break="schulze"), "ABC", letters("1 ABC, 1 BCA, 1 CAB"))
    assert (outcome.status.value, ranked(outcome)) == ("tied", [{"A", "B", "C"}])


def test_a_dissent_from_a_drawn_decision_counts_the_others() -> None:
    outcome = count(LOTTERY, OPTIONS, EVEN, kind="choice", seed=41)
    assert outcome.dissent.percentage == 60.0


def test_a_threshold_that_nobody_reaches_is_no_tie_to_break() -> None:
    rule = Rule(RuleKind.THRESHOLD, 0.9, tie_break="lottery")
    assert count(rule, OPTIONS, EVEN, kind="choice", seed=1).status.value == "no_majority"


def test_all_tied_after_a_verdict_may_be_drawn_too() -> None:
    rule = Rule(RuleKind.THRESHOLD, 0.5, tie_break="lottery")
    outcome = count(rule, (), ballots("yes", "no"), kind="verdict", seed=4)
    assert outcome.decision == drawn(("yes", "no"), 4)[0]
