"""Threshold: an option wins when it has at least a given share of everyone asked, whether they answered or not."""

from __future__ import annotations

import math
from dataclasses import replace

from domain.voting.plurality import plurality
from domain.voting.profile import Profile
from domain.voting.standing import Standing
from domain.voting.weights import exactly

__all__ = ["threshold"]


def threshold(profile: Profile, *, asked: int, fraction: float) -> Standing:
    """The standing by first choices, short unless the best reach `fraction` of `asked`, exact at the boundary.

    Where votes are weighted, everyone asked still counts as a whole vote.
    """
    found = plurality(profile)
    most = found.tally[found.first[0]]
    needed = max(1, math.ceil(exactly(fraction) * asked * profile.scale))
    if most < needed:
        # Nobody is ahead of it: whoever is first gets there with the fewest.
        can_be_won = profile.scale == 1 and needed <= sum(found.tally)
        return replace(found, is_short=True, votes_to_flip=needed - most if can_be_won else None)
    if len(found.first) > 1 or profile.scale != 1:
        return found
    second = most - found.margin
    flips = max(found.margin // 2 + 1, needed - second)
    return replace(found, votes_to_flip=flips if second + flips <= sum(found.tally) else None)
