"""Median: the middle estimate, with the interquartile range as its spread and the estimates outside it as dissent."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from domain.models.outcome import Outcome
from domain.voting.ballot import Ballot
from domain.voting.estimates import Estimates, as_float
from domain.voting.weights import exactly

__all__ = ["median_outcome", "quantile"]


def quantile(ordered: Sequence[float], fraction: float) -> float:
    """The quantile of sorted numbers by linear interpolation (type 7 of Hyndman and Fan, 1996), rounded once."""
    return as_float(Estimates.quantile([exactly(number) for number in ordered], exactly(fraction)))


def median_outcome(ballots: Sequence[Ballot], *, weighted: bool = False) -> Outcome:
    """The outcome by median; `no_majority` when nobody gave a number that counts.

    Weighted by confidence it is the number with as much confidence below as above it, or between the two where that is even.
    """
    estimates = Estimates.of(ballots, weighted=weighted)
    if not estimates.total:
        return estimates.undecided("median")
    low, high = estimates.quartiles()
    middle = estimates.weighted_middle() if weighted else estimates.quantile(estimates.numbers, Fraction(1, 2))
    return estimates.outcome("median", middle, ballots, low, high, within="middle half")
