"""Plurality: the option with the most first choices wins; equal most is an honest tie."""

from __future__ import annotations

from collections.abc import Sequence

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.tally import first_choice, leaders, report_dissent, tally_first_choices

__all__ = ["plurality_outcome"]


def plurality_outcome(ballots: Sequence[Ballot], options: Sequence[str]) -> Outcome:
    """The outcome by plurality; `no_majority` when nobody answered. The order of options never breaks a tie."""
    tally = tally_first_choices(ballots, options)
    first, most, second = leaders(tally)
    if most == 0:
        return Outcome(OutcomeStatus.NO_MAJORITY, "plurality", tally=tally, margin=0)
    if len(first) > 1:
        return Outcome(
            OutcomeStatus.TIED,
            "plurality",
            tally=tally,
            margin=0,
            votes_to_flip=1,
            dissent=report_dissent(ballots, first_choice, None),
        )
    # Moving one ballot from the winner to the runner-up closes the gap by two, which no other change does.
    return Outcome(
        OutcomeStatus.DECIDED,
        "plurality",
        decision=first[0],
        tally=tally,
        margin=most - second,
        votes_to_flip=(most - second) // 2 + 1,
        dissent=report_dissent(ballots, first_choice, first[0]),
    )
