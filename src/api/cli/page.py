"""Paragraphs on a console: wrapped to its width by cells, indented, and without spaces at the end of a line."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from api.cli.bars import draws_blocks

__all__ = ["Page"]

_LEAST_ROOM = 8


class Page:
    """Writes text as it is given, never as markup. The text has to be visible already."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @property
    def width(self) -> int:
        """Cells of a line."""
        return self._console.width

    @property
    def has_blocks(self) -> bool:
        """Whether bars can be drawn with block characters."""
        return draws_blocks(self._console)

    def gap(self) -> None:
        """An empty line."""
        self._console.print()

    def line(self, text: Text) -> None:
        """One line that fits already."""
        self._console.print(text, soft_wrap=True)

    def paragraph(self, text: str, *, indent: int = 0, hang: int = 0, style: str = "") -> None:
        """Lines indented by `indent` cells, those after the first by `hang` more."""
        # Wrapped here rather than by the console, which would fill an indented block up with spaces.
        room = max(_LEAST_ROOM, self.width - indent - hang)
        for place, line in enumerate(Text(text, style=style).wrap(self._console, room)):
            line.rstrip()
            self.line(Text(" " * (indent + (hang if place else 0))).append_text(line))
