"""Approval: the option that most ballots name wins."""

from __future__ import annotations

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_votes

__all__ = ["approval"]


def approval(profile: Profile) -> Standing:
    """The standing by approvals; the margin is in votes. `votes_to_flip` is exact, for whole votes."""
    return by_votes(profile.named(), scale=profile.scale)
