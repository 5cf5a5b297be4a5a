"""Agreement: how often two agents give the same answer, and the correlation that is left once chance is taken out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Correlation", "category_correlation", "estimate_correlation", "pair_agreement"]

_Z95 = 1.959964
"""Of the standard normal distribution, for an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Correlation:
    """A correlation between two agents, averaged over all pairs, with its interval of 95 % and the questions it rests on.

    Bounds lie in -1 to 1. They are taken over questions, which are the independent draws here: agents are not.
    """

    value: float
    low: float
    high: float
    questions: int


def pair_agreement(counts: Sequence[int]) -> float | None:
    """The share of pairs of agents that gave the same answer, of how many gave each; None for fewer than two agents."""
    total = sum(counts)
    if total < 2:
        return None
    return sum(count * (count - 1) for count in counts) / (total * (total - 1))


def category_correlation(groups: Sequence[tuple[int, Sequence[Mapping[Hashable, int]]]]) -> Correlation | None:
    """The correlation of answers by category, over questions that are grouped by the categories they offer.

    Each group is the number of its categories, and for each question how many gave which. What two agents would agree on by
    chance is what two agents agree on who were asked different questions of the group: an estimate without the bias that a
    question's own tally has, with which every correlation seen on one question would be zero. A group of fewer than
    `_ENOUGH_FOR_MARGINALS` questions takes equal chances for its categories instead. The value is
    (within - chance) / (1 - chance), pooled over the groups (Scott, 1955; for two categories the intraclass correlation of
    Fleiss and Cuzick, 1979); the interval is a jackknife over questions. None without two questions, or where all always agree
    on one answer, so that nothing could differ.
    """
    tables = [table for size, questions in groups if (table := _Table.of(size, questions)) is not None]
    if sum(table.questions for table in tables) < 2:
        return None
    excess, room = sum(table.excess() for table in tables), sum(table.room() for table in tables)
    if room <= 1e-12:
        return None
    without = []
    for table in tables:
        own_excess, own_room = table.excess(), table.room()
        for place in range(table.questions):
            other_excess = excess - own_excess + table.excess(without=place)
            other_room = room - own_room + table.room(without=place)
            if other_room > 1e-12:
                without.append(other_excess / other_room)
    return _jackknifed(excess / room, without)


def estimate_correlation(questions: Sequence[Sequence[float]]) -> Correlation | None:
    """The intraclass correlation of numbers on one scale, over questions: one-way analysis of variance (Shrout and Fleiss, 1979).

    None for fewer than two questions with two answers each, or where nothing varies.
    """
    usable = [numbers for numbers in questions if len(numbers) >= 2]
    if len(usable) < 2:
        return None
    sums = [_Sums(len(numbers), math.fsum(numbers), _squares_about_mean(numbers)) for numbers in usable]
    value = _intraclass(sums)
    if value is None:
        return None
    rests = (_intraclass([*sums[:place], *sums[place + 1 :]]) for place in range(len(sums)))
    return _jackknifed(value, [rest for rest in rests if rest is not None])


_ENOUGH_FOR_MARGINALS = 10


class _Table:
    """The questions of one group as shares of categories, with the sums that leaving one out needs."""

    __slots__ = ("_agreed", "_between", "_own", "_shares", "_size", "_sum", "_within", "questions")

    def __init__(self, size: int, within: list[float], shares: list[Mapping[Hashable, float]]) -> None:
        self._size = size
        self._within = within
        self._agreed = math.fsum(within)
        self._shares = shares
        self.questions = len(within)
        self._sum: dict[Hashable, float] = {}
        for share in shares:
            for category, part in share.items():
                self._sum[category] = self._sum.get(category, 0.0) + part
        self._own = [math.fsum(part * part for part in share.values()) for share in shares]
        self._between = math.fsum(part * part for part in self._sum.values()) - math.fsum(self._own)

    @classmethod
    def of(cls, size: int, questions: Sequence[Mapping[Hashable, int]]) -> _Table | None:
        within: list[float] = []
        shares: list[Mapping[Hashable, float]] = []
        for counts in questions:
            agreed = pair_agreement(list(counts.values()))
            if agreed is not None:
                total = sum(counts.values())
                within.append(agreed)
                shares.append({category: count / total for category, count in counts.items()})
        return cls(size, within, shares) if within else None

    def excess(self, *, without: int | None = None) -> float:
        """Agreement beyond chance, summed over the questions."""
        within = self._agreed - (0.0 if without is None else self._within[without])
        return within - self._count(without) * self._chance(without)

    def room(self, *, without: int | None = None) -> float:
        """What could be agreed on beyond chance, summed over the questions."""
        return self._count(without) * (1 - self._chance(without))

    def _count(self, without: int | None) -> int:
        return self.questions - (without is not None)

    def _chance(self, without: int | None) -> float:
        count = self._count(without)
        if self.questions < _ENOUGH_FOR_MARGINALS:
            return 1 / self._size
        between = self._between
        if without is not None:
            share = self._shares[without]
            between -= 2 * (
                math.fsum(part * self._sum[category] for category, part in share.items()) - self._own[without]
            )
        return between / (count * (count - 1))


@dataclass(frozen=True, slots=True)
class _Sums:
    count: int
    total: float
    squares: float


def _squares_about_mean(numbers: Sequence[float]) -> float:
    mean = math.fsum(numbers) / len(numbers)
    return math.fsum((number - mean) ** 2 for number in numbers)


def _intraclass(sums: Sequence[_Sums]) -> float | None:
    if len(sums) < 2:
        return None
    everyone = sum(each.count for each in sums)
    mean = sum(each.total for each in sums) / everyone
    between = sum(each.count * (each.total / each.count - mean) ** 2 for each in sums) / (len(sums) - 1)
    within = sum(each.squares for each in sums) / (everyone - len(sums))
    size = (everyone - sum(each.count**2 for each in sums) / everyone) / (len(sums) - 1)
    spread = between + (size - 1) * within
    return (between - within) / spread if spread > 0 else None


def _jackknifed(value: float, without: Sequence[float]) -> Correlation | None:
    count = len(without)
    if count < 2:
        return None
    mean = math.fsum(without) / count
    error = math.sqrt((count - 1) / count * math.fsum((each - mean) ** 2 for each in without))
    return Correlation(value, max(value - _Z95 * error, -1.0), min(value + _Z95 * error, 1.0), count)
