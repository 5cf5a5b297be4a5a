"""Our rules beside those of votelib, on random profiles with ties and with ballots that do not name every option."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
import votelib.convert
import votelib.evaluate.condorcet
import votelib.evaluate.core
import votelib.evaluate.sequential
from votelib.component.pairwin_scorer import margins, winning_votes
from votelib.component.rankscore import Borda

from domain.voting.rule import Rule, RuleKind
from tests.unit.domain.voting.elections import ballots, count, ranked

OPTIONS = ("A", "B", "C", "D", "E", "F")
Votes = Mapping[tuple[str, ...], int]


def profiles(number: int) -> Iterator[tuple[Sequence[str], list[tuple[str, ...]]]]:
    """So many profiles of 2 to 6 options and 1 to 16 ballots: few enough that ties are common. Three in four are truncated."""
    drawn = random.Random(20_260)
    for _ in range(number):
        options = OPTIONS[: drawn.randint(2, len(OPTIONS))]
        truncated = drawn.random() < 0.75
        orders = []
        for _ in range(drawn.randint(1, 16)):
            order = drawn.sample(options, len(options))
            orders.append(tuple(order[: drawn.randint(1, len(options))] if truncated else order))
        yield options, orders


def best(scores: Mapping[str, object]) -> set[str]:
    """What votelib selects for one seat, a tie as all that are tied."""
    found: set[str] = set()
    for selected in votelib.evaluate.core.get_n_best(dict(scores), 1):
        found |= set(selected) if isinstance(selected, votelib.evaluate.core.Tie) else {selected}
    return found


def known(votes: Votes, options: Sequence[str]) -> dict[tuple[str, ...], int]:
    """The votes with a ballot of no weight, from which votelib learns of options that nobody names."""
    return {tuple(options): 0, **votes}


def pairs(votes: Votes, options: Sequence[str]) -> dict[tuple[str, str], int]:
    """Of each pair, also of those that nobody prefers, who prefers the first to the second."""
    counted = votelib.convert.RankedToCondorcetVotes().convert(known(votes, options))
    return {(a, b): counted.get((a, b), 0) for a in options for b in options if a != b}


def by_plurality(votes: Votes, options: Sequence[str]) -> set[str]:
    first = votelib.convert.RankedToFirstPreference().convert(dict(votes))
    return best({option: first.get(option, 0) for option in options})


def by_borda(votes: Votes, options: Sequence[str]) -> set[str]:
    return best(votelib.convert.RankedToPositionalVotes(Borda(base=0)).convert(known(votes, options)))


def by_copeland(votes: Votes, options: Sequence[str]) -> set[str]:
    wins = votelib.evaluate.condorcet.pairwise_wins(pairs(votes, options))
    scores = votelib.evaluate.condorcet.Copeland.scores(wins)
    return best({option: scores.get(option, 0) for option in options})


def by_minimax(scoring: Callable[[dict[tuple[str, str], int]], object]) -> Callable[[Votes, Sequence[str]], set[str]]:
    def select(votes: Votes, options: Sequence[str]) -> set[str]:
        found = votelib.evaluate.condorcet.MinimaxCondorcet(scoring).evaluate(pairs(votes, options), 1)
        return set().union(*(set(each) if isinstance(each, frozenset) else {each} for each in found))

    return select


def by_schulze(votes: Votes, options: Sequence[str]) -> set[str]:
    """Whoever nobody has a stronger path to; votelib's own selection is finer where several are unbeaten, see below."""
    paths = votelib.evaluate.condorcet.Schulze.widest_paths(pairs(votes, options))
    return {a for a in options if all(paths.get((a, b), 0) >= paths.get((b, a), 0) for b in options if a != b)}


@pytest.mark.parametrize(
    ("rule", "oracle"),
    [
        (Rule(RuleKind.PLURALITY), by_plurality),
        (Rule(RuleKind.BORDA), by_borda),
        (Rule(RuleKind.COPELAND), by_copeland),
        (Rule(RuleKind.SCHULZE), by_schulze),
        (Rule(RuleKind.MINIMAX), by_minimax(winning_votes)),
        (Rule(RuleKind.MINIMAX, strength="margins"), by_minimax(margins)),
    ],
    ids=["plurality", "borda", "copeland", "schulze", "minimax", "minimax by margins"],
)
def test_the_winners_and_the_tied_are_those_of_votelib(
    rule: Rule, oracle: Callable[[Votes, Sequence[str]], set[str]], sized: Callable[[int, int], int]
) -> None:
    tied = 0
    for options, orders in profiles(sized(400, 10_000)):
        outcome = count(rule, options, ballots(*orders))
        expected = oracle(Counter(orders), options)
        assert ranked(outcome)[0] == expected, (rule, options, orders)
        assert outcome.decision == (next(iter(expected)) if len(expected) == 1 else None)
        tied += len(expected) > 1
    assert tied > 20


def test_whoever_votelib_elects_by_schulze_is_among_our_first(sized: Callable[[int, int], int]) -> None:
    for options, orders in profiles(sized(400, 10_000)):
        elected = votelib.evaluate.condorcet.Schulze().evaluate(pairs(Counter(orders), options), 1)
        found = set().union(*(set(each) if isinstance(each, frozenset) else {each} for each in elected))
        assert found <= ranked(count("schulze", options, ballots(*orders)))[0]


def test_the_winner_of_a_runoff_without_ties_is_that_of_votelib(sized: Callable[[int, int], int]) -> None:
    compared = 0
    for options, orders in profiles(sized(400, 10_000)):
        try:
            elected = votelib.evaluate.sequential.TransferableVoteSelector(quota_function="droop").evaluate(
                dict(Counter(orders)), 1
            )
        except NotImplementedError:
            # votelib gives up where several have the fewest votes.
            continue
        outcome = count("irv", options, ballots(*orders))
        assert ranked(outcome)[0] == set(elected), (options, orders)
        compared += 1
    assert compared > 100


def test_approvals_are_counted_as_votelib_does(sized: Callable[[int, int], int]) -> None:
    drawn = random.Random(7)
    for _ in range(sized(400, 10_000)):
        options = OPTIONS[: drawn.randint(2, len(OPTIONS))]
        approved = [
            frozenset(drawn.sample(options, drawn.randint(1, len(options)))) for _ in range(drawn.randint(1, 16))
        ]
        votes = votelib.convert.ApprovalToSimpleVotes().convert(dict(Counter(approved)))
        expected = best({option: votes.get(option, 0) for option in options})
        outcome = count("approval", options, ballots(*map(tuple, approved)), kind="approval")
        assert ranked(outcome)[0] == expected
