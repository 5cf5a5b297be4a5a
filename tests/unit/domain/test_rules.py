"""Plurality, threshold and median: exact at the boundary, honest about ties, everyone in the denominator."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.outcome import Outcome, OutcomeStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot
from domain.voting.median import median_outcome, quantile
from domain.voting.rule import Rule, RuleKind, applicable, apply_rule, default_rule, rules_for

OPTIONS = ("yes", "no", "weekends only")


def ballots(*answers: Answer) -> list[Ballot]:
    return [Ballot(f"archon-{n}", answer, None, f"reason {n}") for n, answer in enumerate(answers, 1)]


def plurality_outcome(cast: Sequence[Ballot], options: Sequence[str]) -> Outcome:
    answer = AnswerFormat(AnswerKind.CHOICE, tuple(options))
    return apply_rule(Rule(RuleKind.PLURALITY), answer, cast, asked=len(cast))


def threshold_outcome(cast: Sequence[Ballot], options: Sequence[str], *, asked: int, fraction: float) -> Outcome:
    answer = AnswerFormat(AnswerKind.CHOICE, tuple(options))
    return apply_rule(Rule(RuleKind.THRESHOLD, fraction), answer, cast, asked=asked)


def votes(**counts: int) -> list[Ballot]:
    return ballots(*[option for option, count in counts.items() for _ in range(count)])


def test_the_most_votes_win_and_the_rest_is_reported_as_dissent() -> None:
    outcome = plurality_outcome(ballots("yes", "no", "no", "weekends only", None), OPTIONS)
    assert (outcome.status, outcome.decision, outcome.margin) == (OutcomeStatus.DECIDED, "no", 1)
    assert dict(outcome.tally) == {"yes": 1, "no": 2, "weekends only": 1}
    assert outcome.dissent.percentage == 50.0
    assert [(p.answer, p.agents, p.reasons) for p in outcome.dissent.positions] == [
        ("yes", ("archon-1",), ("reason 1",)),
        ("weekends only", ("archon-4",), ("reason 4",)),
    ]


@pytest.mark.parametrize("order", [OPTIONS, OPTIONS[::-1]])
def test_equal_most_votes_are_a_tie_whatever_the_order_of_the_options(order: tuple[str, ...]) -> None:
    outcome = plurality_outcome(ballots("no", "yes"), order)
    assert (outcome.status, outcome.decision, outcome.margin) == (OutcomeStatus.TIED, None, 0)
    assert len(outcome.dissent.positions) == 2


def test_without_a_vote_there_is_no_majority() -> None:
    outcome = plurality_outcome(ballots(None, None), OPTIONS)
    assert (outcome.status, outcome.decision) == (OutcomeStatus.NO_MAJORITY, None)


def brute_force_flips(counts: list[int], needed: int, *, is_won: bool = True) -> int | None:
    """The fewest ballots moved so that another option is the sole leader with at least `needed` votes; any one where none has won."""
    winner = counts.index(max(counts)) if is_won else -1
    total = sum(counts)
    best = None
    for other in range(len(counts)):
        if other == winner:
            continue
        for moved in range(1, total - counts[other] + 1):
            new = list(counts)
            from_winner = min(moved, counts[winner]) if is_won else 0
            if is_won:
                new[winner] -= from_winner
            new[other] += moved
            rest = moved - from_winner
            for third in range(len(counts)):
                if third not in (winner, other):
                    taken = min(rest, new[third])
                    new[third] -= taken
                    rest -= taken
            if new[other] >= needed and all(new[other] > c for i, c in enumerate(new) if i != other):
                best = moved if best is None else min(best, moved)
                break
    return best


@given(st.lists(st.integers(0, 8), min_size=3, max_size=3).filter(lambda c: sorted(c)[-1] > sorted(c)[-2]))
def test_votes_to_flip_is_the_fewest_there_are_under_plurality(counts: list[int]) -> None:
    outcome = plurality_outcome(ballots(*[o for o, c in zip(OPTIONS, counts, strict=True) for _ in range(c)]), OPTIONS)
    expected = brute_force_flips(counts, 1)
    assert outcome.votes_to_flip == expected


@given(
    st.lists(st.integers(0, 8), min_size=3, max_size=3).filter(lambda c: sorted(c)[-1] > sorted(c)[-2]),
    st.integers(0, 6),
    st.sampled_from([0.25, 0.5, 0.6]),
)
def test_votes_to_flip_is_the_fewest_there_are_under_a_threshold(counts: list[int], silent: int, share: float) -> None:
    asked = sum(counts) + silent
    outcome = threshold_outcome(
        ballots(*[o for o, c in zip(OPTIONS, counts, strict=True) for _ in range(c)]),
        OPTIONS,
        asked=asked,
        fraction=share,
    )
    needed = max(1, int(-(-Fraction(str(share)) * asked // 1)))
    is_won = outcome.status is OutcomeStatus.DECIDED
    assert outcome.votes_to_flip == brute_force_flips(counts, needed, is_won=is_won)


def test_a_threshold_counts_everyone_asked_also_those_who_failed() -> None:
    outcome = threshold_outcome(votes(yes=35, no=1), ("yes", "no"), asked=72, fraction=0.5)
    assert outcome.status is OutcomeStatus.NO_MAJORITY
    assert threshold_outcome(votes(yes=36, no=0), ("yes", "no"), asked=72, fraction=0.5).decision == "yes"


def test_a_threshold_is_exact_where_floating_point_is_not() -> None:
    # 0.7 * 10 is 7.000000000000001 in no reading but the binary one; 0.1 * 30 is 3.0000000000000004.
    assert threshold_outcome(votes(yes=3), ("yes", "no"), asked=30, fraction=0.1).decision == "yes"
    assert threshold_outcome(votes(yes=7), ("yes", "no"), asked=10, fraction=0.7).decision == "yes"


def test_two_options_that_both_reach_the_threshold_equally_are_tied() -> None:
    outcome = threshold_outcome(votes(yes=5, no=5), ("yes", "no"), asked=10, fraction=0.5)
    assert (outcome.status, outcome.decision) == (OutcomeStatus.TIED, None)


def test_the_median_of_an_even_number_lies_between_the_middle_two() -> None:
    outcome = median_outcome(ballots(1.0, 2.0, 4.0, 100.0))
    assert (outcome.status, outcome.decision, outcome.margin) == (OutcomeStatus.DECIDED, 3.0, None)


def test_estimates_outside_the_middle_half_are_the_dissent() -> None:
    outcome = median_outcome(ballots(1.0, 5.0, 5.0, 5.0, 9.0))
    assert outcome.spread == 0.0
    assert [(p.answer, p.agents) for p in outcome.dissent.positions] == [
        ("below 5", ("archon-1",)),
        ("above 5", ("archon-5",)),
    ]
    assert outcome.dissent.percentage == 40.0


def test_the_largest_estimates_do_not_overflow() -> None:
    assert median_outcome(ballots(-1.7e308, 1.7e308)).decision == 0.0


def test_no_estimates_are_no_majority() -> None:
    assert median_outcome(ballots(None)).status is OutcomeStatus.NO_MAJORITY


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_quantiles_stay_within_the_numbers_and_rise(numbers: list[float]) -> None:
    ordered = sorted(numbers)
    cuts = [quantile(ordered, fraction) for fraction in (0, 0.25, 0.5, 0.75, 1)]
    assert cuts[0] == ordered[0]
    assert cuts[-1] == ordered[-1]
    assert all(low <= high + 1e-6 for low, high in itertools.pairwise(cuts))


def outcome_of(kind: RuleKind, cast: list[Ballot]) -> Outcome:
    answer = AnswerFormat(AnswerKind.CHOICE, OPTIONS)
    return apply_rule(Rule(kind), answer, cast, asked=len(cast))


@given(
    st.lists(st.sampled_from([*OPTIONS, None]), min_size=1, max_size=30),
    st.sampled_from([RuleKind.PLURALITY, RuleKind.THRESHOLD]),
    st.randoms(),
)
def test_who_votes_what_changes_nothing_only_how_many_do(
    answers: list[str | None], kind: RuleKind, order: random.Random
) -> None:
    shuffled = list(answers)
    order.shuffle(shuffled)
    first, second = outcome_of(kind, ballots(*answers)), outcome_of(kind, ballots(*shuffled))
    assert (first.status, first.decision, first.tally, first.margin) == (
        second.status,
        second.decision,
        second.tally,
        second.margin,
    )


@pytest.mark.parametrize(
    ("kind", "rules"),
    [
        ("choice", "plurality threshold"),
        ("verdict", "threshold plurality"),
        ("approval", "approval"),
        ("ranking", "schulze borda copeland minimax irv plurality"),
        ("score", "median trimmed_mean"),
        ("probability", "median trimmed_mean mean_odds"),
        ("number", "median trimmed_mean"),
        ("text", "synthesis"),
    ],
)
def test_each_kind_of_answer_has_its_rules_the_default_first(kind: str, rules: str) -> None:
    assert [rule.value for rule in rules_for(AnswerKind(kind))] == rules.split()


def test_a_default_rule_comes_with_its_fraction() -> None:
    assert default_rule(AnswerKind.VERDICT) == Rule(RuleKind.THRESHOLD, 0.5)
    assert default_rule(AnswerKind.CHOICE) == Rule(RuleKind.PLURALITY)
    assert applicable(AnswerFormat(AnswerKind.NUMBER)) == (Rule(RuleKind.MEDIAN), Rule(RuleKind.TRIMMED_MEAN, 0.1))


@pytest.mark.parametrize(
    ("rule", "kind", "pointer"),
    [
        (Rule(RuleKind.MEDIAN), AnswerKind.CHOICE, "/rule/kind"),
        (Rule(RuleKind.PLURALITY), AnswerKind.SCORE, "/rule/kind"),
        (Rule(RuleKind.PLURALITY, 0.5), AnswerKind.CHOICE, "/rule/fraction"),
        (Rule(RuleKind.THRESHOLD, 0.0), AnswerKind.VERDICT, "/rule/fraction"),
        (Rule(RuleKind.THRESHOLD, 1.01), AnswerKind.VERDICT, "/rule/fraction"),
        (Rule(RuleKind.THRESHOLD, float("nan")), AnswerKind.VERDICT, "/rule/fraction"),
        (Rule(RuleKind.TRIMMED_MEAN, 0.5), AnswerKind.NUMBER, "/rule/fraction"),
        (Rule(RuleKind.TRIMMED_MEAN, 0.0), AnswerKind.NUMBER, "/rule/fraction"),
        (Rule(RuleKind.MEAN_ODDS), AnswerKind.NUMBER, "/rule/kind"),
        (Rule(RuleKind.SCHULZE), AnswerKind.APPROVAL, "/rule/kind"),
        (Rule(RuleKind.BORDA, strength="margins"), AnswerKind.RANKING, "/rule/strength"),
        (Rule(RuleKind.SCHULZE, strength="votes"), AnswerKind.RANKING, "/rule/strength"),
        (Rule(RuleKind.SCHULZE, tie_break="schulze"), AnswerKind.RANKING, "/rule/tie_break"),
        (Rule(RuleKind.SCHULZE, tie_break="median"), AnswerKind.RANKING, "/rule/tie_break"),
        (Rule(RuleKind.MEDIAN, tie_break="lottery"), AnswerKind.NUMBER, "/rule/tie_break"),
        (Rule(RuleKind.PLURALITY, tie_break="coin"), AnswerKind.CHOICE, "/rule/tie_break"),
        (Rule(RuleKind.PLURALITY, weighted_by="wealth"), AnswerKind.CHOICE, "/rule/weighted_by"),
        (Rule(RuleKind.SYNTHESIS, weighted_by="confidence"), AnswerKind.TEXT, "/rule/weighted_by"),
    ],
)
def test_a_rule_that_does_not_fit_is_named_where_it_stands(rule: Rule, kind: AnswerKind, pointer: str) -> None:
    options = OPTIONS if kind.has_options else ()
    assert [problem.pointer for problem in rule.problems(AnswerFormat(kind, options))] == [pointer]
