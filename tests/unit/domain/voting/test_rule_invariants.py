"""What holds of every rule, or of those that promise it, whatever the ballots are."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from domain.models.outcome import Outcome
from domain.voting.ballot import Ballot
from domain.voting.profile import Profile
from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import RANKING_RULES, ballots, count, ranked

OPTIONS = ("ape", "bee", "cat", "dog")
CONDORCET_RULES = ("schulze", "copeland", "minimax")
MONOTONE_RULES = ("plurality", "borda", "copeland", "schulze", "minimax")

ORDER = st.integers(1, len(OPTIONS)).flatmap(
    lambda length: st.permutations(OPTIONS).map(lambda order: tuple(order[:length]))
)
PROFILE = st.lists(ORDER, min_size=1, max_size=11)
RULES = st.sampled_from(
    [
        *(Rule(RuleKind(kind)) for kind in RANKING_RULES),
        *(Rule(RuleKind(kind), strength="margins") for kind in ("schulze", "minimax")),
        *(Rule(RuleKind(kind), weighted_by="confidence") for kind in RANKING_RULES),
        *(Rule(RuleKind(kind), tie_break="lottery") for kind in RANKING_RULES),
        *(Rule(RuleKind(kind), tie_break="borda") for kind in RANKING_RULES if kind != "borda"),
    ]
)


def unsure(orders: list[tuple[str, ...]]) -> list[Ballot]:
    """Ballots of different confidence, some of which say none."""
    return [
        replace(ballot, confidence=None if n % 3 == 2 else (n % 5) / 4) for n, ballot in enumerate(ballots(*orders))
    ]


def said(outcome: Outcome) -> tuple[object, ...]:
    """What an outcome says of options, without who said it."""
    return outcome.status, outcome.decision, dict(outcome.tally), outcome.margin, ranked(outcome)


@given(PROFILE, RULES, st.randoms())
def test_who_casts_which_ballot_changes_nothing(
    orders: list[tuple[str, ...]], rule: Rule, chance: random.Random
) -> None:
    given_ballots = unsure(orders)
    shuffled = chance.sample(given_ballots, len(given_ballots))
    renamed = [replace(ballot, agent_id=f"agent-{n}") for n, ballot in enumerate(shuffled)]
    one, other = count(rule, OPTIONS, given_ballots, seed=3), count(rule, OPTIONS, renamed, seed=3)
    assert said(one) == said(other)


@given(PROFILE, RULES, st.permutations(OPTIONS))
def test_the_order_in_which_options_stand_changes_nothing(
    orders: list[tuple[str, ...]], rule: Rule, order: list[str]
) -> None:
    one, other = count(rule, OPTIONS, unsure(orders), seed=3), count(rule, tuple(order), unsure(orders), seed=3)
    assert said(one) == said(other)


@given(PROFILE, RULES, st.permutations(OPTIONS))
def test_the_names_of_options_decide_nothing_but_a_lottery(
    orders: list[tuple[str, ...]], rule: Rule, order: list[str]
) -> None:
    assume(not rule.needs_seed)
    called = dict(zip(OPTIONS, order, strict=True))
    renamed = [tuple(called[option] for option in each) for each in orders]
    one, other = count(rule, OPTIONS, unsure(orders)), count(rule, OPTIONS, unsure(renamed))
    assert other.decision == (None if one.decision is None else called[str(one.decision)])
    assert ranked(other) == [{called[option] for option in group} for group in ranked(one)]


@given(PROFILE, st.sampled_from(CONDORCET_RULES), st.sampled_from(["winning_votes", "margins"]))
def test_whoever_beats_all_others_is_elected(orders: list[tuple[str, ...]], kind: str, strength: str) -> None:
    preferred = Profile.of(ballots(*orders), OPTIONS).pairwise()
    beats = [
        option
        for option in range(len(OPTIONS))
        if all(preferred[option][other] > preferred[other][option] for other in range(len(OPTIONS)) if other != option)
    ]
    assume(beats)
    rule = Rule(RuleKind(kind), strength=None if kind == "copeland" else strength)
    outcome = count(rule, OPTIONS, ballots(*orders))
    assert outcome.decision == OPTIONS[beats[0]]
    if kind != "copeland":
        assert outcome.margin is not None
        assert outcome.margin > 0


@given(st.lists(st.permutations(OPTIONS), min_size=1, max_size=11))
def test_borda_and_a_runoff_never_elect_whoever_loses_to_all_others(orders: list[list[str]]) -> None:
    given_ballots = ballots(*map(tuple, orders))
    preferred = Profile.of(given_ballots, OPTIONS).pairwise()
    losing = [
        name
        for option, name in enumerate(OPTIONS)
        if all(preferred[option][other] < preferred[other][option] for other in range(len(OPTIONS)) if other != option)
    ]
    assume(losing)
    assert count("borda", OPTIONS, given_ballots).decision != losing[0]
    assert count("irv", OPTIONS, given_ballots).decision != losing[0]


@settings(max_examples=40)
@given(PROFILE, st.sampled_from(MONOTONE_RULES), st.data())
def test_a_winner_that_is_ranked_higher_still_wins(
    orders: list[tuple[str, ...]], kind: str, data: st.DataObject
) -> None:
    winner = count(kind, OPTIONS, ballots(*orders)).decision
    assume(winner is not None)
    place = data.draw(st.integers(0, len(orders) - 1))
    order = list(orders[place])
    at = order.index(str(winner)) if winner in order else len(order)
    assume(at > 0)
    lifted = [option for option in order if option != winner]
    lifted.insert(data.draw(st.integers(0, at - 1)), str(winner))
    raised = [*orders[:place], tuple(lifted), *orders[place + 1 :]]
    assert count(kind, OPTIONS, ballots(*raised)).decision == winner


@given(PROFILE, st.sampled_from(RANKING_RULES))
def test_everybody_twice_decides_as_everybody_once(orders: list[tuple[str, ...]], kind: str) -> None:
    one, two = count(kind, OPTIONS, ballots(*orders)), count(kind, OPTIONS, ballots(*orders, *orders))
    assert (one.status, one.decision, ranked(one)) == (two.status, two.decision, ranked(two))


@given(PROFILE, st.sampled_from(RANKING_RULES))
def test_an_abstention_weighs_for_nobody(orders: list[tuple[str, ...]], kind: str) -> None:
    one, other = count(kind, OPTIONS, ballots(*orders)), count(kind, OPTIONS, ballots(*orders, None, None))
    assert said(one) == said(other)


@given(PROFILE)
def test_the_pairwise_matrix_is_what_counting_pair_by_pair_gives(orders: list[tuple[str, ...]]) -> None:
    preferred = Profile.of(unsure(orders), OPTIONS, weighted=True).pairwise()
    weights = [50 if each.confidence is None else round(each.confidence * 100) for each in unsure(orders)]
    for (i, one), (j, other) in itertools.permutations(enumerate(OPTIONS), 2):
        expected = sum(
            weight
            for order, weight in zip(orders, weights, strict=True)
            if one in order and (other not in order or order.index(one) < order.index(other))
        )
        assert preferred[i][j] == expected


def test_an_instant_runoff_is_not_monotone_and_is_not_said_to_be() -> None:
    before = ballots(*[("ape", "bee", "cat")] * 39, *[("bee", "cat", "ape")] * 35, *[("cat", "ape", "bee")] * 26)
    after = ballots(*[("ape", "bee", "cat")] * 49, *[("bee", "cat", "ape")] * 25, *[("cat", "ape", "bee")] * 26)
    assert count("irv", OPTIONS[:3], before).decision == "ape"
    assert count("irv", OPTIONS[:3], after).decision == "cat"


@pytest.mark.parametrize("kind", RANKING_RULES)
def test_an_option_that_is_none_is_no_ballot(kind: str) -> None:
    with pytest.raises(KeyError):
        count(kind, OPTIONS, ballots(("ape", "eel")))
