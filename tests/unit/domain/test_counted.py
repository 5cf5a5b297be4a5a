"""How many of something, in words."""

from __future__ import annotations

import pytest

from domain.counted import counted


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 votes"),
        (1, "1 vote"),
        (2, "2 votes"),
        (1_234_567_890_123, "1,234,567,890,123 votes"),
        (1.0, "1 vote"),
        (2.5, "2.5 votes"),
    ],
)
def test_only_one_of_something_stands_in_the_singular(count: float, said: str) -> None:
    assert counted(count, "vote") == said


@pytest.mark.parametrize(("count", "said"), [(1, "1 entry"), (1_000, "1,000 entries")])
def test_a_noun_can_bring_its_own_plural(count: int, said: str) -> None:
    assert counted(count, "entry", "entries") == said
