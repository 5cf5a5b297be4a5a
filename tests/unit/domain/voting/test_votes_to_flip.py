"""The fewest ballots that would have to change for another option to win outright."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.outcome import OutcomeStatus
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import RANKING_RULES, ballots, count, letters

OPTIONS = ("a", "b", "c", "d")


def fewest_changes(approved: list[tuple[str, ...]], winner: str) -> int | None:
    """By trying every choice of ballots, each replaced by one for the new winner alone."""
    for changes in range(1, len(approved) + 1):
        for chosen in itertools.combinations(range(len(approved)), changes):
            for option in OPTIONS:
                if option == winner:
                    continue
                after = [(option,) if place in chosen else each for place, each in enumerate(approved)]
                votes = {name: sum(name in each for each in after) for name in OPTIONS}
                if all(votes[option] > other for name, other in votes.items() if name != option):
                    return changes
    return None


@given(st.lists(st.lists(st.sampled_from(OPTIONS), unique=True, max_size=4).map(tuple), min_size=1, max_size=7))
def test_it_is_exact_under_approval(approved: list[tuple[str, ...]]) -> None:
    outcome = count("approval", OPTIONS, ballots(*approved), kind="approval")
    if outcome.status is OutcomeStatus.DECIDED:
        assert outcome.votes_to_flip == fewest_changes(approved, str(outcome.decision))
    elif outcome.status is OutcomeStatus.TIED:
        assert outcome.votes_to_flip == 1


def test_under_approval_the_runner_up_may_be_named_by_nobody_but_the_friends_of_the_winner() -> None:
    approved = [("a", "b"), ("a", "b"), ("a", "c"), ("a", "d"), ("a",)]
    outcome = count("approval", OPTIONS, ballots(*approved), kind="approval")
    assert (outcome.margin, outcome.votes_to_flip) == (3, fewest_changes(approved, "a"))


@pytest.mark.parametrize("kind", [kind for kind in RANKING_RULES if kind != "plurality"])
def test_it_is_not_said_where_it_is_not_exact(kind: str) -> None:
    assert count(kind, "ABC", letters("5 ABC, 2 BCA")).votes_to_flip is None


def test_it_is_not_said_of_weighted_votes() -> None:
    rule = Rule(RuleKind.PLURALITY, weighted_by="confidence")
    assert count(rule, OPTIONS, ballots("a", "a", "b"), kind="choice").votes_to_flip is None
