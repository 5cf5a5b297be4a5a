"""Recounts: other rules, and who decides alone; shortcuts say what counting everything again says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.analysis.recounts import Count, leave_out, winners
from domain.models.outcome import OutcomeStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind, default_rule

_CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "later"))
_RANKING = AnswerFormat(AnswerKind.RANKING, ("Memphis", "Nashville", "Chattanooga", "Knoxville"))
_SCORE = AnswerFormat(AnswerKind.SCORE, (), 0.0, 10.0)


def counting(answer: AnswerFormat, said: Sequence[Answer], rule: Rule | None = None, asked: int | None = None) -> Count:
    ballots = [Ballot(f"a{place}", given) for place, given in enumerate(said)]
    return Count(rule or default_rule(answer.kind), answer, ballots, len(said) if asked is None else asked, 7)


def each(count: Count) -> dict[str, frozenset[str]]:
    return {ballot.agent_id: frozenset({ballot.agent_id}) for ballot in count.ballots}


def decided(count: Count) -> tuple[OutcomeStatus, str | float | None]:
    outcome = count.outcome()
    return outcome.status, outcome.decision


def test_the_capital_of_tennessee_has_another_winner_under_each_kind_of_rule() -> None:
    memphis, nashville, chattanooga, knoxville = _RANKING.options
    said = (
        [(memphis, nashville, chattanooga, knoxville)] * 30
        + [(nashville, chattanooga, knoxville, memphis)] * 19
        + [(chattanooga, knoxville, nashville, memphis)] * 11
        + [(knoxville, chattanooga, nashville, memphis)] * 12
    )
    found = {each.rule: each.decision for each in winners(counting(_RANKING, said))}
    assert found == {
        "schulze": nashville,
        "borda": nashville,
        "copeland": nashville,
        "minimax": nashville,
        "irv": knoxville,
        "plurality": memphis,
    }


def test_the_rule_that_was_agreed_on_comes_first_and_as_it_was_agreed_on() -> None:
    said = ["yes"] * 6 + ["no"] * 4
    found = winners(counting(_CHOICE, said, Rule(RuleKind.THRESHOLD, 0.7)))
    assert [(each.rule, each.decision) for each in found] == [("threshold", None), ("plurality", "yes")]


def test_with_one_vote_between_them_each_who_voted_for_the_winner_is_pivotal() -> None:
    count = counting(_CHOICE, ["yes", "yes", "yes", "no", "no"])
    assert leave_out(count, each(count), count.outcome()).pivotal == ("a0", "a1", "a2")


def test_with_two_votes_between_them_nobody_is() -> None:
    count = counting(_CHOICE, ["yes"] * 4 + ["no"] * 2)
    assert leave_out(count, each(count), count.outcome()).pivotal == ()


def test_a_model_whose_votes_carry_the_decision_is_pivotal() -> None:
    count = counting(_CHOICE, ["yes"] * 5 + ["no"] * 3)
    models = {"small": frozenset({"a0", "a1", "a2"}), "large": frozenset({"a3", "a4", "a5", "a6", "a7"})}
    assert leave_out(count, models, count.outcome()).pivotal == ("small",)


def test_whoever_failed_may_be_what_a_threshold_lacked() -> None:
    count = counting(_CHOICE, ["yes"] * 3 + ["no"] * 2, Rule(RuleKind.THRESHOLD, 0.5), asked=7)
    groups = {**each(count), "absent": frozenset({"absent"})}
    assert leave_out(count, groups, count.outcome()).pivotal == ("a3", "a4", "absent")


def test_everybody_at_once_is_not_left_out() -> None:
    count = counting(_CHOICE, ["yes", "no", "yes"])
    assert leave_out(count, {"all": frozenset({"a0", "a1", "a2"})}, count.outcome()).pivotal == ()


def test_an_estimate_says_how_far_one_agent_moves_it() -> None:
    count = counting(_SCORE, [1.0, 2.0, 3.0, 9.0])
    found = leave_out(count, each(count), count.outcome())
    assert (found.pivotal, found.low, found.high) == ((), 2.0, 3.0)


def test_what_would_take_too_long_is_not_looked_for() -> None:
    options = tuple(f"option {number}" for number in range(50))
    draw = random.Random(1)
    half = [tuple(draw.sample(options, 50)) for _ in range(36)]
    # Each beside its reverse, so that all are tied and no margin says anything.
    said = [*half, *(given[::-1] for given in half)]
    count = counting(AnswerFormat(AnswerKind.RANKING, options), said)
    assert not leave_out(count, each(count), count.outcome()).looked


@pytest.mark.parametrize("rule", ["schulze", "borda", "copeland", "minimax", "irv", "plurality"])
@given(said=st.lists(st.permutations(_RANKING.options), min_size=2, max_size=9), weighted=st.booleans())
def test_the_margin_is_trusted_only_where_counting_again_says_the_same(
    rule: str, said: list[Sequence[str]], weighted: bool
) -> None:
    agreed = Rule(RuleKind(rule), weighted_by="confidence" if weighted else None)
    ballots = [Ballot(f"a{place}", tuple(given), 0.1 * (place + 1)) for place, given in enumerate(said)]
    count = Count(agreed, _RANKING, ballots, len(said), 7)
    outcome = count.outcome()
    one_by_one = tuple(name for name, agents in each(count).items() if decided(count.without(agents)) != decided(count))
    assert leave_out(count, each(count), outcome).pivotal == one_by_one


@pytest.mark.parametrize("rule", ["median", "trimmed_mean", "mean_odds"])
@given(said=st.lists(st.none() | st.sampled_from([0.0, 0.05, 0.2, 0.5, 0.6, 0.95, 1.0]), min_size=2, max_size=12))
def test_two_recounts_say_how_far_any_one_estimate_moves_the_result(rule: str, said: list[float | None]) -> None:
    count = counting(AnswerFormat(AnswerKind.PROBABILITY), said, Rule(RuleKind(rule)))
    numbers = [
        number
        for ballot in count.ballots
        if not ballot.abstains and isinstance(number := decided(count.without(frozenset({ballot.agent_id})))[1], float)
    ]
    found = leave_out(count, each(count), count.outcome())
    assert (found.low, found.high) == (min(numbers, default=None), max(numbers, default=None))


@given(said=st.lists(st.sampled_from(["yes", "no", "later", None]), min_size=2, max_size=12), pick=st.data())
def test_leaving_out_groups_says_what_counting_without_them_says(said: list[str | None], pick: st.DataObject) -> None:
    count = counting(_CHOICE, said)
    cut = pick.draw(st.integers(1, len(said) - 1))
    names = [ballot.agent_id for ballot in count.ballots]
    groups = {"first": frozenset(names[:cut]), "rest": frozenset(names[cut:])}
    outcome = count.outcome()
    expected = tuple(name for name, agents in groups.items() if decided(count.without(agents)) != decided(count))
    assert leave_out(count, groups, outcome).pivotal == expected
