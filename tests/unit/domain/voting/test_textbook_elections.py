"""Elections from textbooks and from life, whose winners under each rule are known."""

from __future__ import annotations

import pytest

from domain.voting.condorcet import Strength, strongest_paths
from domain.voting.profile import Profile
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import cast, count, decision, letters, ranked

CITIES = ("Memphis", "Nashville", "Chattanooga", "Knoxville")
TENNESSEE = cast(
    {
        ("Memphis", "Nashville", "Chattanooga", "Knoxville"): 42,
        ("Nashville", "Chattanooga", "Knoxville", "Memphis"): 26,
        ("Chattanooga", "Knoxville", "Nashville", "Memphis"): 15,
        ("Knoxville", "Chattanooga", "Nashville", "Memphis"): 17,
    }
)

MAYORS = ("Kiss", "Montroll", "Wright")
BURLINGTON = cast(
    {
        ("Montroll", "Kiss", "Wright"): 1332,
        ("Montroll", "Wright", "Kiss"): 767,
        ("Montroll",): 455,
        ("Kiss", "Montroll", "Wright"): 2043,
        ("Kiss", "Wright", "Montroll"): 371,
        ("Kiss",): 568,
        ("Wright", "Montroll", "Kiss"): 1513,
        ("Wright", "Kiss", "Montroll"): 495,
        ("Wright",): 1289,
    }
)


@pytest.mark.parametrize(
    ("rule", "capital", "margin"),
    [
        ("plurality", "Memphis", 16),
        ("borda", "Nashville", 21),
        ("copeland", "Nashville", 1),
        ("schulze", "Nashville", 16),
        ("minimax", "Nashville", 16),
        ("irv", "Knoxville", 16),
    ],
)
def test_the_capital_of_tennessee(rule: str, capital: str, margin: int) -> None:
    outcome = count(rule, CITIES, TENNESSEE)
    assert (outcome.decision, outcome.margin) == (capital, margin)


def test_the_points_of_the_cities_of_tennessee() -> None:
    assert count("borda", CITIES, TENNESSEE).tally == {
        "Memphis": 126,
        "Nashville": 194,
        "Chattanooga": 173,
        "Knoxville": 107,
    }


def test_the_cities_of_tennessee_are_ranked_beside_the_decision() -> None:
    assert ranked(count("copeland", CITIES, TENNESSEE)) == [{"Nashville"}, {"Chattanooga"}, {"Knoxville"}, {"Memphis"}]
    assert ranked(count("irv", CITIES, TENNESSEE)) == [{"Knoxville"}, {"Memphis"}, {"Nashville"}, {"Chattanooga"}]


@pytest.mark.parametrize(
    ("rule", "mayor"),
    [
        ("plurality", "Wright"),
        ("irv", "Kiss"),
        ("schulze", "Montroll"),
        ("copeland", "Montroll"),
        ("minimax", "Montroll"),
        ("borda", "Montroll"),
    ],
)
def test_the_mayor_of_burlington_in_2009(rule: str, mayor: str) -> None:
    assert decision(rule, MAYORS, BURLINGTON) == mayor


def test_the_last_round_of_burlington_is_the_margin_of_the_runoff() -> None:
    assert count("irv", MAYORS, BURLINGTON).margin == 4314 - 4064


@pytest.mark.parametrize("rule", ["schulze", "borda", "copeland", "minimax", "irv", "plurality"])
def test_a_condorcet_cycle_of_equal_strength_is_an_honest_tie(rule: str) -> None:
    outcome = count(rule, "ABC", letters("1 ABC, 1 BCA, 1 CAB"))
    assert (outcome.status.value, outcome.decision, ranked(outcome)) == ("tied", None, [{"A", "B", "C"}])


def test_a_condorcet_cycle_is_cut_where_it_is_weakest() -> None:
    cycle = letters("5 ABC, 4 BCA, 3 CAB")
    assert [decision(rule, "ABC", cycle) for rule in ("schulze", "minimax", "copeland")] == ["A", "A", "tied"]


FIRST_EXAMPLE = "5 ACBED, 5 ADECB, 8 BEDAC, 3 CABED, 7 CAEBD, 2 CBADE, 7 DCEBA, 8 EBADC"
SECOND_EXAMPLE = "5 ACBD, 2 ACDB, 3 ADCB, 4 BACD, 3 CBDA, 3 CDBA, 1 DACB, 5 DBAC, 4 DCBA"
TIED_EXAMPLE = "3 ABCD, 2 DABC, 2 DBCA, 2 CBDA"


@pytest.mark.parametrize("strength", ["winning_votes", "margins"])
def test_schulzes_first_example(strength: str) -> None:
    outcome = count(Rule(RuleKind.SCHULZE, strength=strength), "ABCDE", letters(FIRST_EXAMPLE))
    assert outcome.decision == "E"
    assert ranked(outcome) == [{"E"}, {"A"}, {"C"}, {"B"}, {"D"}]


def test_the_strongest_paths_of_schulzes_first_example() -> None:
    preferred = Profile.of(letters(FIRST_EXAMPLE), "ABCDE").pairwise()
    assert preferred[0] == [0, 20, 26, 30, 22]
    assert strongest_paths(preferred, Strength.WINNING_VOTES) == [
        [0, 28, 28, 30, 24],
        [25, 0, 28, 33, 24],
        [25, 29, 0, 29, 24],
        [25, 28, 28, 0, 24],
        [25, 28, 28, 31, 0],
    ]


def test_schulzes_second_example() -> None:
    assert ranked(count("schulze", "ABCD", letters(SECOND_EXAMPLE))) == [{"D"}, {"A"}, {"C"}, {"B"}]


def test_schulzes_example_of_two_winners_is_a_tie_of_these_two() -> None:
    outcome = count("schulze", "ABCD", letters(TIED_EXAMPLE))
    assert outcome.status.value == "tied"
    assert ranked(outcome)[0] == {"B", "D"}


def test_without_a_ranking_there_is_no_majority() -> None:
    for rule in ("schulze", "borda", "copeland", "minimax", "irv", "plurality"):
        assert decision(rule, "ABC", []) == "no_majority"
