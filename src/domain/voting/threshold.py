"""Threshold: an option wins when it has at least a given share of everyone asked, whether they answered or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.tally import first_choice, leaders, report_dissent, tally_first_choices

__all__ = ["threshold_outcome"]


def threshold_outcome(ballots: Sequence[Ballot], options: Sequence[str], *, asked: int, fraction: float) -> Outcome:
    """The outcome by threshold: decided by the only leader that reaches `fraction` of `asked`, exact at the boundary.

    Tied when several lead with the same reaching count, `no_majority` when nobody reaches it.
    """
    tally = tally_first_choices(ballots, options)
    first, most, second = leaders(tally)
    needed = max(1, math.ceil(Fraction(str(fraction)) * asked))
    if most < needed:
        return Outcome(
            OutcomeStatus.NO_MAJORITY,
            "threshold",
            tally=tally,
            margin=most - second if len(first) == 1 else 0,
            dissent=report_dissent(ballots, first_choice, None),
        )
    if len(first) > 1:
        return Outcome(
            OutcomeStatus.TIED,
            "threshold",
            tally=tally,
            margin=0,
            votes_to_flip=1,
            dissent=report_dissent(ballots, first_choice, None),
        )
    flips = max((most - second) // 2 + 1, needed - second)
    answered = sum(tally.values())
    return Outcome(
        OutcomeStatus.DECIDED,
        "threshold",
        decision=first[0],
        tally=tally,
        margin=most - second,
        votes_to_flip=flips if second + flips <= answered else None,
        dissent=report_dissent(ballots, first_choice, first[0]),
    )
