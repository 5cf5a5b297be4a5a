"""Approval: the option that most ballots name wins."""

from __future__ import annotations

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_score

__all__ = ["approval"]


def approval(profile: Profile) -> Standing:
    """The standing by approvals; the margin is in votes. `votes_to_flip` is exact, for whole votes."""
    votes = profile.named()
    groups = by_score(votes)
    margin = votes[groups[0][0]] - votes[groups[1][0]] if len(groups) > 1 else 0
    flips = None
    if profile.scale == 1:
        # A ballot closes no gap by more than two, and at least as many as the margin name the winner without the runner-up: each of
        # them, replaced by one for the runner-up alone, does close it by two, and nobody else is ahead of the runner-up.
        flips = 1 if len(groups[0]) > 1 else margin // 2 + 1
    return Standing(groups, votes, margin, flips, scale=profile.scale)
