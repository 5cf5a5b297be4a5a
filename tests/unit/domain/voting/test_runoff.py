"""Instant run-off: its rounds, and the ties for the last place that nobody breaks."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from domain.voting.lottery import drawn
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import ballots, count, letters, ranked

OPTIONS = ("A", "B", "C", "D")
ORDERS = st.lists(
    st.integers(1, 4).flatmap(lambda n: st.permutations(OPTIONS).map(lambda order: tuple(order[:n]))),
    min_size=1,
    max_size=9,
)


def possible_winners(orders: list[tuple[str, ...]], standing: frozenset[str]) -> set[str]:
    """Who wins when those with the fewest votes leave one by one, in any order that this leaves open."""
    votes = Counter(dict.fromkeys(standing, 0))
    for order in orders:
        first = next((option for option in order if option in standing), None)
        if first is not None:
            votes[first] += 1
    majority = [option for option in standing if 2 * votes[option] > sum(votes.values())]
    if majority or len(standing) == 1:
        return set(majority or standing)
    fewest = min(votes.values())
    return set().union(
        *(possible_winners(orders, standing - {option}) for option in standing if votes[option] == fewest)
    )


@given(ORDERS)
def test_the_first_are_all_who_win_in_some_order_of_leaving(orders: list[tuple[str, ...]]) -> None:
    assert ranked(count("irv", OPTIONS, ballots(*orders)))[0] == possible_winners(orders, frozenset(OPTIONS))


@given(ORDERS, st.integers(0, 40))
def test_a_lottery_elects_one_of_those_who_can_win(orders: list[tuple[str, ...]], seed: int) -> None:
    outcome = count(Rule(RuleKind.IRV, tie_break="lottery"), OPTIONS, ballots(*orders), seed=seed)
    assert outcome.decision in possible_winners(orders, frozenset(OPTIONS))


def test_ballots_go_on_to_the_next_choice_that_still_stands() -> None:
    outcome = count("irv", "ABCD", letters("5 ABCD, 4 BACD, 2 CDBA, 1 DCBA"))
    # D leaves, its ballot goes to C; C leaves, its three ballots go to B.
    assert (outcome.decision, outcome.margin) == ("B", 2)
    assert ranked(outcome) == [{"B"}, {"A"}, {"C"}, {"D"}]


def test_whoever_has_more_than_half_wins_at_once() -> None:
    outcome = count("irv", "ABC", letters("6 ABC, 3 BAC, 2 CBA"))
    assert (outcome.decision, outcome.margin) == ("A", 3)


def test_a_ballot_that_names_nobody_who_stands_is_exhausted() -> None:
    outcome = count("irv", "ABC", letters("4 A, 3 BA, 2 C"))
    assert (outcome.decision, outcome.margin) == ("A", 1)


def test_a_tie_for_the_last_place_that_decides_nothing_is_no_tie() -> None:
    outcome = count("irv", "ABCD", letters("5 A, 2 BA, 2 CA"))
    assert outcome.decision == "A"


def test_a_tie_for_the_last_place_on_which_it_hangs_stays_a_tie() -> None:
    outcome = count("irv", "ABC", letters("3 A, 2 BC, 2 CB"))
    assert (outcome.status.value, ranked(outcome)) == ("tied", [{"B", "C"}, {"A"}])


def test_of_those_with_the_fewest_votes_the_last_drawn_leaves() -> None:
    rule = Rule(RuleKind.IRV, tie_break="lottery")
    for seed in range(6):
        leaves = max(("B", "C"), key=drawn("ABC", seed).index)
        assert count(rule, "ABC", letters("3 A, 2 BC, 2 CB"), seed=seed).decision == ("C" if leaves == "B" else "B")


def test_more_courses_than_can_be_followed_are_an_honest_tie() -> None:
    options = tuple(f"option {n}" for n in range(40))
    orders = [(options[n], options[(n + 1) % 40]) for n in range(40)]
    outcome = count("irv", options, ballots(*orders))
    assert outcome.status.value == "tied"
    assert ranked(outcome)[0] == set(options)
