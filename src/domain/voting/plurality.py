"""Plurality: the option with the most first choices wins; equal most is an honest tie."""

from __future__ import annotations

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_score

__all__ = ["plurality"]


def plurality(profile: Profile) -> Standing:
    """The standing by first choices; the margin is in votes. `votes_to_flip` is exact, for whole votes."""
    votes = profile.first_places()
    groups = by_score(votes)
    margin = votes[groups[0][0]] - votes[groups[1][0]] if len(groups) > 1 else 0
    flips = None
    if profile.scale == 1:
        # Moving one ballot from the winner to the runner-up closes the gap by two, which no other change does.
        flips = 1 if len(groups[0]) > 1 else margin // 2 + 1
    return Standing(groups, votes, margin, flips, scale=profile.scale)
