"""Groupthink: agreement that stays high from one deliberation to the next, which says more about the agents than about the questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["SHARE", "SUSTAINED", "SustainedAgreement", "largest_share", "sustained_agreement"]

SHARE = 0.9
SUSTAINED = 10
"""So many deliberations in a row, this one among them, each with more than `SHARE` on one answer, raise the warning."""


@dataclass(frozen=True, slots=True)
class SustainedAgreement:
    """The share on the largest position in the latest deliberations of these agents, oldest first, and whether that is a warning."""

    shares: tuple[float, ...]
    is_warning: bool

    @property
    def mean(self) -> float | None:
        """Over those that are there."""
        return sum(self.shares) / len(self.shares) if self.shares else None


def largest_share(tally: Mapping[str, int]) -> float | None:
    """The share (0 to 1) of the answers counted that are on the largest position; None where nothing was counted."""
    total = sum(tally.values())
    return max(tally.values()) / total if total else None


def sustained_agreement(shares: Sequence[float]) -> SustainedAgreement:
    """Whether the last `SUSTAINED` of these shares, oldest first, are all above `SHARE`."""
    latest = tuple(shares[-SUSTAINED:])
    return SustainedAgreement(latest, len(latest) == SUSTAINED and min(latest) > SHARE)
