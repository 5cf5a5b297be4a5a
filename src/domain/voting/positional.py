"""Borda: each ballot gives an option as many points as there are options below its place."""

from __future__ import annotations

from domain.voting.profile import Profile
from domain.voting.standing import Standing, by_score

__all__ = ["borda"]


def borda(profile: Profile) -> Standing:
    """The standing by points: of n options the first of a ballot gets n - 1, the next n - 2, one that is not named none.

    The margin is in points (Borda 1781; what is not named gets no points, however many are).
    """
    size = len(profile.options)
    points = [0] * size
    for order, weight in profile.orders:
        most = (size - 1) * weight
        for option in order:
            points[option] += most
            most -= weight
    groups = by_score(points)
    margin = points[groups[0][0]] - points[groups[1][0]] if len(groups) > 1 else 0
    return Standing(groups, points, margin, scale=profile.scale)
