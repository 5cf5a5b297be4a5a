"""Copeland, Schulze and minimax: rules that compare options by twos, and choose who beats all others where somebody does."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from operator import gt

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_score

__all__ = ["Strength", "copeland", "minimax", "schulze", "strongest_paths"]


class Strength(StrEnum):
    """How strong it is to be preferred: by the votes for it, or by what these are more than the votes against."""

    WINNING_VOTES = "winning_votes"
    MARGINS = "margins"


def copeland(profile: Profile) -> Standing:
    """The standing by pairwise wins, of which a tie is half of one (Copeland 1951). Tally and margin are in wins."""
    preferred = profile.pairwise()
    size = len(profile.options)
    halves = [
        sum(
            2 if mine > theirs else mine == theirs
            for other, (mine, theirs) in enumerate(zip(preferred[option], _column(preferred, option), strict=True))
            if other != option
        )
        for option in range(size)
    ]
    groups = by_score(halves)
    margin = halves[groups[0][0]] - halves[groups[1][0]] if len(groups) > 1 else 0
    return Standing(groups, halves, margin, scale=2)


def schulze(profile: Profile, strength: Strength = Strength.WINNING_VOTES) -> Standing:
    """The standing by strongest paths: a winner has to everybody a path at least as strong as the one back (Schulze 2011).

    The tally is of first places, because the rule gives no points; the margin is the winner's weakest pairwise one.
    """
    preferred = profile.pairwise()
    paths = strongest_paths(preferred, strength)
    size = len(profile.options)
    back = list(zip(*paths, strict=True))
    beaten_by = [sum(map(gt, theirs, mine)) for mine, theirs in zip(paths, back, strict=True)]
    beats = [sum(map(gt, mine, theirs)) for mine, theirs in zip(paths, back, strict=True)]
    winners = tuple(option for option in range(size) if not beaten_by[option])
    # Below the first place no order is promised where the paths say none: who is beaten by as many and beats as many shares a place.
    rest = sorted({(beaten_by[option], -beats[option]) for option in range(size) if beaten_by[option]})
    groups = (
        winners,
        *(tuple(o for o in range(size) if beaten_by[o] and (beaten_by[o], -beats[o]) == place) for place in rest),
    )
    return Standing(groups, profile.first_places(), _weakest(preferred, winners[0]), scale=profile.scale)


def minimax(profile: Profile, strength: Strength = Strength.WINNING_VOTES) -> Standing:
    """The standing by the worst defeat, the smallest first (Simpson 1969, Kramer 1977). Tally and margin are as with Schulze."""
    preferred = profile.pairwise()
    size = len(profile.options)
    scores = [
        -max(
            _strength(preferred[other][option], preferred[option][other], strength)
            for other in range(size)
            if other != option
        )
        for option in range(size)
    ]
    groups = by_score(scores)
    return Standing(groups, profile.first_places(), _weakest(preferred, groups[0][0]), scale=profile.scale)


def strongest_paths(preferred: Sequence[Sequence[int]], strength: Strength) -> list[list[int]]:
    """Row i, column j: the strength of the weakest link of the strongest path from i to j; 0 where there is none.

    Links are laid the strongest first: the one that first lets i reach j is the weakest of the strongest path between them. Whom an
    option reaches, and who reaches it, are whole numbers of a bit an option, so that most links cost no more than a look.
    """
    size = len(preferred)
    links = [
        (_strength(mine, preferred[other][option], strength), option, other)
        for option in range(size)
        for other, mine in enumerate(preferred[option])
        if mine > preferred[other][option]
    ]
    links.sort(reverse=True)
    paths = [[0] * size for _ in range(size)]
    reached = [1 << option for option in range(size)]
    reaching = list(reached)
    for weakest, option, other in links:
        starts = reaching[option] & ~reaching[other]
        if not starts:
            continue
        onward = reached[other]
        while starts:
            start = starts & -starts
            starts ^= start
            place = start.bit_length() - 1
            gained = onward & ~reached[place]
            reached[place] |= gained
            row = paths[place]
            while gained:
                end = gained & -gained
                gained ^= end
                row[end.bit_length() - 1] = weakest
                reaching[end.bit_length() - 1] |= start
    return paths


def _strength(mine: int, theirs: int, strength: Strength) -> int:
    if strength is Strength.MARGINS:
        return mine - theirs
    return mine if mine > theirs else 0


def _weakest(preferred: Sequence[Sequence[int]], option: int) -> int:
    return min(mine - preferred[other][option] for other, mine in enumerate(preferred[option]) if other != option)


def _column(preferred: Sequence[Sequence[int]], option: int) -> list[int]:
    return [row[option] for row in preferred]
