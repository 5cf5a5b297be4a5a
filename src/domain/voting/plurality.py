"""Plurality: the option with the most first choices wins; equal most is an honest tie."""

from __future__ import annotations

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_votes

__all__ = ["plurality"]


def plurality(profile: Profile) -> Standing:
    """The standing by first choices; the margin is in votes. `votes_to_flip` is exact, for whole votes."""
    return by_votes(profile.first_places(), scale=profile.scale)
