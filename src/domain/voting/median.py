"""Median: the middle estimate, with the interquartile range as its spread and the estimates outside it as dissent."""

from __future__ import annotations

from collections.abc import Sequence

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.tally import report_dissent

__all__ = ["median_outcome", "quantile"]


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The quantile of sorted numbers by linear interpolation (type 7 of Hyndman and Fan, 1996)."""
    position = fraction * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    weight = position - low
    # Weighted from both ends, because the difference of two large estimates may overflow.
    return ordered[low] * (1 - weight) + ordered[high] * weight if weight else ordered[low]


def median_outcome(ballots: Sequence[Ballot]) -> Outcome:
    """The outcome by median; `no_majority` when nobody gave a number."""
    numbers = sorted(ballot.answer for ballot in ballots if isinstance(ballot.answer, float))
    if not numbers:
        return Outcome(OutcomeStatus.NO_MAJORITY, "median")
    low, high = quantile(numbers, 0.25), quantile(numbers, 0.75)
    tally: dict[str, int] = {}
    for number in numbers:
        name = f"{number:g}"
        tally[name] = tally.get(name, 0) + 1

    def position_of(ballot: Ballot) -> str:
        number = ballot.answer
        if not isinstance(number, float) or low <= number <= high:
            return "middle half"
        return f"below {low:g}" if number < low else f"above {high:g}"

    return Outcome(
        OutcomeStatus.DECIDED,
        "median",
        decision=quantile(numbers, 0.5),
        tally=tally,
        spread=high - low,
        dissent=report_dissent(ballots, position_of, "middle half"),
    )
