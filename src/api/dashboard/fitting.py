"""Keeps a page small whatever the texts on it hold: where it would be too large it is drawn again with less of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MOST_OF_A_PANEL", "MOST_OF_A_ROOM", "MOST_OF_A_VIEW", "MOST_OF_BOTH", "WHOLE", "Fit", "fitted"]

MOST_OF_A_VIEW = 105_000
"""Bytes of the chamber as HTML; with the panel of a seat, the frame around both and their files it stays below 200,000."""
MOST_OF_A_PANEL = 40_000
"""Bytes of the panel of one seat; beside a chamber in the same page what that leaves of `MOST_OF_BOTH`, if that is less."""
MOST_OF_BOTH = 132_000
"""Bytes of the chamber and of the panel that a page opens with."""
MOST_OF_A_ROOM = 145_000
"""Bytes of any other page that shows texts of agents."""

_LEAST_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class Fit:
    """How much is shown of what there is: shares of the context, of the question, of the agents' texts, and of the rows of lists."""

    of_context: float = 1.0
    of_asked: float = 1.0
    of_said: float = 1.0
    of_rows: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether as much is shown as where there is room for everything."""
        return self == WHOLE

    def context(self, characters: int) -> int:
        """Of a context that long elsewhere."""
        return max(_LEAST_CHARACTERS, int(characters * self.of_context))

    def asked(self, characters: int) -> int:
        """Of a question that long elsewhere."""
        return max(_LEAST_CHARACTERS, int(characters * self.of_asked))

    def said(self, characters: int) -> int:
        """Of a text of an agent that long elsewhere."""
        return max(_LEAST_CHARACTERS, int(characters * self.of_said))

    def rows(self, most: int) -> int:
        """Of a list with so many rows elsewhere."""
        return max(1, int(most * self.of_rows))


WHOLE = Fit()
# What was asked gives way first, and of it the context: what is said against a decision is what a reader came for.
_FITS = (
    WHOLE,
    Fit(of_context=1 / 8),
    Fit(of_context=1 / 16, of_asked=1 / 3),
    Fit(of_context=1 / 16, of_asked=1 / 8, of_said=1 / 2),
    Fit(of_context=1 / 16, of_asked=1 / 16, of_said=1 / 4, of_rows=1 / 2),
    Fit(of_context=1 / 32, of_asked=1 / 32, of_said=1 / 8, of_rows=1 / 4),
    Fit(of_context=1 / 64, of_asked=1 / 64, of_said=1 / 16, of_rows=1 / 12),
    Fit(of_context=1 / 128, of_asked=1 / 128, of_said=1 / 64, of_rows=1 / 12),
)


def fitted(draw: Callable[[Fit], str], *, most: int) -> str:
    """What is drawn with as much text as leaves it at most `most` bytes; the least that there is where nothing does."""
    page = ""
    for fit in _FITS:
        page = draw(fit)
        if len(page.encode()) <= most:
            break
    return page
