"""A profile: all ballots as orders of places of options with their weights, and who is preferred to whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domain.voting.ballot import Answer, Ballot
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE, weight_of

__all__ = ["Profile", "named_options"]


def named_options(answer: Answer) -> tuple[str, ...]:
    """The options that an answer names, best first; none for an abstention or a number."""
    if isinstance(answer, tuple):
        return answer
    return (answer,) if isinstance(answer, str) else ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The ballots of those who answered. Options that a ballot does not name share the place below all that it names.

    `orders` gives for each distinct ballot the places of its options, best first, with its weight in units, of which a whole
    vote has `scale`. Abstentions are not in it; a ballot that names nothing (an approval of nothing) is.
    """

    options: tuple[str, ...]
    orders: tuple[tuple[tuple[int, ...], int], ...]
    scale: int = 1

    @classmethod
    def of(cls, ballots: Iterable[Ballot], options: Sequence[str], *, weighted: bool = False) -> Profile:
        """The profile of these ballots. Raises `KeyError` for a ballot with an option that is none of `options`."""
        place = {option: number for number, option in enumerate(options)}
        counted: Counter[tuple[int, ...]] = Counter()
        for ballot in ballots:
            if not ballot.abstains:
                order = tuple([place[option] for option in named_options(ballot.answer)])
                counted[order] += weight_of(ballot, weighted=weighted)
        return cls(tuple(options), tuple(counted.items()), UNITS_OF_A_WEIGHTED_VOTE if weighted else 1)

    @property
    def total(self) -> int:
        """The units of everyone who answered."""
        return sum(weight for _, weight in self.orders)

    def first_places(self) -> list[int]:
        """For each option the units of the ballots that put it first."""
        units = [0] * len(self.options)
        for order, weight in self.orders:
            if order:
                units[order[0]] += weight
        return units

    def named(self) -> list[int]:
        """For each option the units of the ballots that name it at all."""
        units = [0] * len(self.options)
        for order, weight in self.orders:
            for option in order:
                units[option] += weight
        return units

    def pairwise(self) -> list[list[int]]:
        """Row i, column j: the units of the ballots that prefer option i to option j."""
        size = len(self.options)
        # Each row is one large number with a field a column, wide enough for the sum, so that a ballot is added to a row at once.
        width = self.total.bit_length() + 1
        field = [1 << (width * option) for option in range(size)]
        everyone = sum(field)
        rows = [0] * size
        for order, weight in self.orders:
            below = everyone
            for option in order:
                below -= field[option]
                rows[option] += below * weight
        mask = (1 << width) - 1
        return [[(row >> (width * column)) & mask for column in range(size)] for row in rows]
