"""Trimmed mean and mean odds: estimates averaged, without the most extreme, or as the odds they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from fractions import Fraction

from domain.models.outcome import Outcome
from domain.voting.ballot import Ballot
from domain.voting.estimates import Estimates
from domain.voting.weights import exactly

__all__ = ["mean_odds_outcome", "trimmed_mean_outcome"]

_TRIMS_FROM = 10
# Decimal logarithms are rounded correctly, so that every machine gets the same digits (General Decimal Arithmetic, 1.70).
_DIGITS = 40


def trimmed_mean_outcome(ballots: Sequence[Ballot], *, fraction: float, weighted: bool = False) -> Outcome:
    """The mean of the numbers without that share of them at each end, at least one at each end from ten numbers on.

    Whoever is below or above all that were kept dissents. Weighted, each number that is kept counts its confidence.
    """
    estimates = Estimates.of(ballots, weighted=weighted)
    count = len(estimates.numbers)
    cut = int(exactly(fraction) * count)
    if count >= _TRIMS_FROM:
        cut = max(cut, 1)
    numbers, weights = estimates.numbers[cut : count - cut], estimates.weights[cut : count - cut]
    if not sum(weights):
        return estimates.undecided("trimmed_mean")
    total = sum((number * weight for number, weight in zip(numbers, weights, strict=True)), Fraction(0))
    mean = total / sum(weights)
    return estimates.outcome("trimmed_mean", mean, ballots, numbers[0], numbers[-1], within="kept")


def mean_odds_outcome(ballots: Sequence[Ballot], *, weighted: bool = False) -> Outcome:
    """The probability whose odds are the geometric mean of the odds that were given; `no_majority` when nobody gave any.

    One that is certain (0 or 1) makes the mean certain, because its odds are none or without end. Of one certain that it is and
    another certain that it is not there is no mean: that is `no_majority` too.
    """
    estimates = Estimates.of(ballots, weighted=weighted)
    pairs = [pair for pair in zip(estimates.numbers, estimates.weights, strict=True) if pair[1]]
    certain = {number for number, _ in pairs if number in (0, 1)}
    if not pairs or len(certain) > 1:
        return estimates.undecided("mean_odds")
    mean = certain.pop() if certain else _mean_of_odds(pairs)
    low, high = estimates.quartiles()
    return estimates.outcome("mean_odds", mean, ballots, low, high, within="middle half")


def _mean_of_odds(pairs: Sequence[tuple[Fraction, int]]) -> Fraction:
    exact = Context(prec=_DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX)
    products: dict[int, Decimal] = {}
    for number, weight in pairs:
        against = number.denominator - number.numerator
        odds = exact.divide(Decimal(number.numerator), Decimal(against))
        products[weight] = exact.multiply(products.get(weight, Decimal(1)), odds)
    # One logarithm for all of a weight, because a logarithm takes as long as a hundred products.
    logarithm = Decimal(0)
    for weight, product in products.items():
        logarithm = exact.add(logarithm, exact.multiply(exact.ln(product), Decimal(weight)))
    mean = exact.divide(logarithm, Decimal(sum(weight for _, weight in pairs)))
    # 1 / (1 + 1 / odds), which for very small odds keeps their digits.
    odds_against = exact.exp(exact.minus(mean))
    return Fraction(exact.divide(Decimal(1), exact.add(Decimal(1), odds_against)))
