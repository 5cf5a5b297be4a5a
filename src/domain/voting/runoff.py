"""IRV: the option with the fewest votes leaves and its ballots go on to their next choice, until one has more than half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from domain.voting.profile import Profile
from domain.voting.standing import Standing

__all__ = ["instant_runoff"]

_MOST_BALLOTS_READ = 12_000
_MOST_ROUNDS_READ = 20
"""How many ballots, and at least how many times all of them, are read over all courses that a tie for the last place leaves open."""


@dataclass(frozen=True, slots=True)
class _End:
    """How a count ended: who stood in the last round in groups of as many votes, the most first, and the winner's lead."""

    groups: tuple[tuple[int, ...], ...]
    margin: int


def instant_runoff(profile: Profile, *, draw: Sequence[int] | None = None) -> Standing:
    """The standing by instant run-off. The tally is of first places, the margin in votes of the last round.

    Where several have the fewest votes, every course that their leaving one by one can take is followed, and whoever wins one is
    among the first: they are tied unless all courses end with one winner. Finding that out is not polynomial in general, so beyond
    a number of ballots read all who still stand where the courses part are tied. With `draw`, an order of all options, there is
    one course: of those with the fewest votes the last drawn leaves.
    """
    return _Count(profile, draw).standing()


class _Count:
    """One count of a profile, from everybody standing to the end or to the point where its courses part."""

    def __init__(self, profile: Profile, draw: Sequence[int] | None) -> None:
        self._profile = profile
        self._orders = [(order, weight) for order, weight in profile.orders if order and weight]
        self._drawn_at = None if draw is None else {option: place for place, option in enumerate(draw)}

    def standing(self) -> Standing:
        standing = frozenset(range(len(self._profile.options)))
        left: list[tuple[int, ...]] = []
        while True:
            votes = self._votes(standing)
            end = _end(votes)
            if end is not None:
                return self._standing((*end.groups, *reversed(left)), end.margin)
            leaving = self._leaving(votes)
            if len(leaving) > 1:
                return self._parted(standing, left)
            left.append(leaving[0])
            standing -= set(leaving[0])

    def _parted(self, standing: frozenset[int], left: Sequence[tuple[int, ...]]) -> Standing:
        ends = self._ends(standing)
        winners = standing if ends is None else {option for end in ends for option in end.groups[0]}
        groups = (tuple(sorted(winners)), tuple(sorted(standing - winners)), *reversed(left))
        return self._standing(groups, min((end.margin for end in ends or ()), default=0))

    def _ends(self, start: frozenset[int]) -> list[_End] | None:
        """Every way in which the count can end from `start`; None where there are too many to follow."""
        ends: list[_End] = []
        seen, waiting, read = {start}, [start], 0
        most = max(_MOST_BALLOTS_READ, _MOST_ROUNDS_READ * len(self._orders))
        while waiting:
            standing = waiting.pop()
            read += len(self._orders)
            if read > most:
                return None
            votes = self._votes(standing)
            end = _end(votes)
            if end is not None:
                ends.append(end)
                continue
            for group in self._leaving(votes):
                rest = standing.difference(group)
                if rest not in seen:
                    seen.add(rest)
                    waiting.append(rest)
        return ends

    def _votes(self, standing: frozenset[int]) -> dict[int, int]:
        votes = dict.fromkeys(sorted(standing), 0)
        for order, weight in self._orders:
            first = next(filter(standing.__contains__, order), None)
            if first is not None:
                votes[first] += weight
        return votes

    def _leaving(self, votes: Mapping[int, int]) -> list[tuple[int, ...]]:
        """Who leaves next: one group, or where the votes leave that open, each option that may.

        Those without a vote leave together, and so do tied ones whose votes, with those of the next ones, are fewer than the
        next one's after them: in whatever order they leave, each of them does before that one.
        """
        ordered = sorted(votes, key=lambda option: votes[option])
        fewest = [option for option in ordered if votes[option] == votes[ordered[0]]]
        if len(fewest) == 1 or not votes[fewest[0]]:
            return [tuple(fewest)]
        if self._drawn_at is not None:
            return [(max(fewest, key=self._drawn_at.__getitem__),)]
        together, safe = 0, 0
        for place, option in enumerate(ordered[:-1], 1):
            together += votes[option]
            if together < votes[ordered[place]]:
                safe = place
        return [tuple(sorted(ordered[:safe]))] if safe else [(option,) for option in fewest]

    def _standing(self, groups: tuple[tuple[int, ...], ...], margin: int) -> Standing:
        found = tuple(group for group in groups if group)
        return Standing(found, self._profile.first_places(), margin, scale=self._profile.scale)


def _end(votes: Mapping[int, int]) -> _End | None:
    """The end of a count in which somebody has more than half of the votes, or the last two have as many, or nobody has any."""
    most = max(votes.values())
    has_won = 2 * most > sum(votes.values())
    if not has_won and most and len(votes) > 2:
        return None
    counts = sorted(set(votes.values()), reverse=True)
    groups = tuple(tuple(option for option, units in votes.items() if units == count) for count in counts)
    return _End(groups, most - (counts[1] if len(counts) > 1 else 0) if has_won else 0)
