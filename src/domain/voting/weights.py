"""Weights: what one ballot counts, in whole units, so that sums are exact."""

from __future__ import annotations

from fractions import Fraction

from domain.voting.ballot import Ballot

__all__ = ["UNITS_OF_A_WEIGHTED_VOTE", "amount", "exactly", "weight_of"]

UNITS_OF_A_WEIGHTED_VOTE = 100
"""A vote of full confidence, where votes are weighted: confidence counts in whole hundredths."""

_UNSAID = 50


def weight_of(ballot: Ballot, *, weighted: bool) -> int:
    """What the ballot counts: 1, or where votes are weighted, its confidence in hundredths. Unsaid confidence is 50."""
    if not weighted:
        return 1
    if ballot.confidence is None:
        return _UNSAID
    return round(exactly(ballot.confidence) * UNITS_OF_A_WEIGHTED_VOTE)


def exactly(number: float) -> Fraction:
    """The number as it is written in decimal digits, so that 0.1 is a tenth."""
    return Fraction(repr(number))


def amount(units: int | Fraction, scale: int = 1) -> float:
    """So many units as votes: a whole number where it is one, else the nearest float."""
    votes = Fraction(units) / scale
    return votes.numerator if votes.denominator == 1 else float(votes)
