"""Topics: where a question came from, and when one source gives too many of them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fractions import Fraction

__all__ = ["FEWEST_TOPICS", "MOST_OF_ONE_SOURCE", "ORIGIN", "WINDOW_DAYS", "TopicOrigin", "lopsided_source"]

ORIGIN = "origin"
"""The name in the metadata of a deliberation under which it stands where its topic came from."""

WINDOW_DAYS = 7
"""So many days are looked at."""

MOST_OF_ONE_SOURCE = 0.3
"""The share of the topics that one source may give."""

FEWEST_TOPICS = 20
"""Of fewer topics nothing is said: the first ones come from somewhere."""


class TopicOrigin(StrEnum):
    """The sources that Conclave knows; callers may name others."""

    AUTONOMOUS = "autonomous"
    PETITION = "petition"
    SCHEDULED = "scheduled"
    API = "api"


def lopsided_source(counts: Mapping[str, int]) -> str | None:
    """The source that gives more than its share of these topics, the largest of several; None where none does."""
    total = sum(counts.values())
    if total < FEWEST_TOPICS:
        return None
    source = min(counts, key=lambda name: (-counts[name], name))
    return source if Fraction(counts[source], total) > Fraction(str(MOST_OF_ONE_SOURCE)) else None
