"""Estimates: numbers with their weights in order, exact as they were written, and the outcome that follows from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.tally import report_dissent
from domain.voting.weights import amount, exactly, weight_of

__all__ = ["Estimates", "as_float"]

_LARGEST = Fraction(sys.float_info.max)
# Tukey (1977): what lies further than this times the interquartile range outside the quartiles stands apart.
_FENCE = Fraction(3, 2)


def as_float(number: Fraction) -> float:
    """The nearest float; one that is too large for any is the largest."""
    return float(min(max(number, -_LARGEST), _LARGEST))


@dataclass(frozen=True, slots=True)
class Estimates:
    """The numbers that ballots gave, in ascending order and exact, each with the units it counts."""

    numbers: tuple[Fraction, ...]
    weights: tuple[int, ...]
    tally: dict[str, float]
    exact: dict[float, Fraction]

    @classmethod
    def of(cls, ballots: Sequence[Ballot], *, weighted: bool) -> Estimates:
        """The estimates of these ballots; whoever gave no number is not in them."""
        found = sorted(
            (ballot.answer, weight_of(ballot, weighted=weighted))
            for ballot in ballots
            if isinstance(ballot.answer, int | float)
        )
        scale = weight_of(Ballot("", None, 1.0), weighted=weighted)
        units: dict[str, int] = {}
        for number, weight in found:
            name = f"{number:g}"
            units[name] = units.get(name, 0) + weight
        tally = {name: amount(count, scale) for name, count in units.items()}
        exact = {number: exactly(number) for number, _ in found}
        return cls(tuple(exact[number] for number, _ in found), tuple(weight for _, weight in found), tally, exact)

    @property
    def total(self) -> int:
        """The units of all."""
        return sum(self.weights)

    @staticmethod
    def quantile(ordered: Sequence[Fraction], fraction: Fraction) -> Fraction:
        """The quantile of sorted numbers by linear interpolation (type 7 of Hyndman and Fan, 1996)."""
        position = fraction * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (position - low)

    def quartiles(self) -> tuple[Fraction, Fraction]:
        """The lower and the upper quartile of the numbers, whatever they count."""
        return self.quantile(self.numbers, Fraction(1, 4)), self.quantile(self.numbers, Fraction(3, 4))

    def weighted_middle(self) -> Fraction:
        """The number at which half of the weight is reached; halfway to the next one where it is reached exactly."""
        reached = 0
        counted = [(number, weight) for number, weight in zip(self.numbers, self.weights, strict=True) if weight]
        for place, (number, weight) in enumerate(counted):
            reached += weight
            if 2 * reached > self.total:
                return number
            if 2 * reached == self.total:
                return (number + counted[place + 1][0]) / 2
        raise ValueError("there is no middle of numbers that count nothing")

    def undecided(self, rule: str) -> Outcome:
        """The outcome where no number counts, or none follows from them."""
        return Outcome(OutcomeStatus.NO_MAJORITY, rule, tally=self.tally)

    def outcome(
        self, rule: str, decision: Fraction, ballots: Sequence[Ballot], low: Fraction, high: Fraction, *, within: str
    ) -> Outcome:
        """The outcome with that decision; whoever estimated less than `low` or more than `high` dissents."""
        first, third = self.quartiles()
        reach = (third - first) * _FENCE
        lower, upper = first - reach, third + reach
        lowest, highest = as_float(low), as_float(high)

        def position_of(ballot: Ballot) -> str:
            number = ballot.answer
            if not isinstance(number, int | float) or low <= self.exact[number] <= high:
                return within
            return f"below {lowest:g}" if self.exact[number] < low else f"above {highest:g}"

        return Outcome(
            OutcomeStatus.DECIDED,
            rule,
            decision=as_float(decision),
            tally=self.tally,
            spread=as_float(third - first),
            dissent=report_dissent(ballots, position_of, within),
            outliers=tuple(
                ballot.agent_id
                for ballot in ballots
                if isinstance(ballot.answer, int | float) and not lower <= self.exact[ballot.answer] <= upper
            ),
        )
