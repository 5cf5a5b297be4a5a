"""Puts text from outside into a page: escaped, with every unseen character spelt out, and in a direction of its own."""

from __future__ import annotations

from html import escape

from application.pages.visible_text import visible, visible_lines

__all__ = ["paragraphs", "plain", "shown"]


def shown(text: object, *, limit: int = 200) -> str:
    """`text` as HTML on one line, cut to `limit` characters; what `visible` spells out is spelt out.

    Its direction stays its own (`<bdi>`), so that it cannot turn around what stands beside it.
    """
    return f"<bdi>{plain(text, limit=limit)}</bdi>"


def plain(text: object, *, limit: int = 200) -> str:
    """The same without the element, for attributes, titles and labels."""
    return escape(visible(str(text), limit=limit))


def paragraphs(text: object, *, limit: int = 200) -> str:
    """`text` as HTML paragraphs, one for each of its lines that says something."""
    lines = visible_lines(str(text), limit=limit)
    return "".join(f"<p><bdi>{escape(line)}</bdi></p>" for line in lines if line)
