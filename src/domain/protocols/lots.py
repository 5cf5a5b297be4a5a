"""Draws lots: an order that looks random and is the same wherever it is drawn again from the same words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

__all__ = ["draw_order", "hashed"]


def hashed(parts: Iterable[str | None]) -> str:
    """SHA-256 (hex) over the parts with their lengths, so that no two lists of parts are told alike."""
    pieces = []
    for part in parts:
        encoded = None if part is None else part.encode(errors="surrogatepass")
        pieces.append(b"-" if encoded is None else b"%d:%b" % (len(encoded), encoded))
    return hashlib.sha256(b"".join(pieces)).hexdigest()


def draw_order(names: Iterable[str], *lot: str) -> Sequence[str]:
    """The names in the order that the lot gives them, whatever order they come in."""
    drawn = hashlib.sha256(hashed(lot).encode())

    def place(name: str) -> bytes:
        digest = drawn.copy()
        digest.update(name.encode(errors="surrogatepass"))
        return digest.digest()

    return sorted(names, key=place)
