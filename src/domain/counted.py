"""How many of something, in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(count: float, noun: str, plural: str = "") -> str:
    """`1 agent`, `2,000 agents`; `plural` is for nouns that take more than an s."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:,.10g}"
    return f"{number} {noun if count == 1 else plural or noun + 's'}"
