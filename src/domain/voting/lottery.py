"""The lottery: an order of options that a seed and their names alone decide, and that anyone can draw again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["drawn"]


def drawn(names: Iterable[str], seed: int) -> list[str]:
    """The names in the order in which they are drawn: by SHA-256 of the seed in decimal digits, a NUL, and the name in UTF-8.

    Neither the order in which they are given nor what else is drawn has a part in it.
    """
    return sorted(names, key=lambda name: (hashlib.sha256(f"{seed}\0{name}".encode()).digest(), name))
