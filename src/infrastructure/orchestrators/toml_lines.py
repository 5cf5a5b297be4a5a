"""Finds the line of a TOML document on which a value is set, which its parser does not tell."""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["line_of"]


def line_of(text: str, at: tuple[str, ...]) -> int:
    """The line on which the statement begins that sets the value at that path, or its nearest table that there is.

    Every beginning of a document that ends between two statements is a document itself, so the first of them that has the
    value ends with its statement; the one before it ends where that begins.
    """
    lines = text.split("\n")
    whole = tomllib.loads(text)
    while at and not _has(whole, at):
        at = at[:-1]
    before = 0
    low, high = 0, len(lines)
    while low < high:
        middle = (low + high) // 2
        end, document = _document_from(lines, middle, high)
        if document is None or _has(document, at):
            high = middle
        else:
            before, low = end, end + 1
    return min(before + 1, len(lines))


def _document_from(lines: list[str], end: int, most: int) -> tuple[int, dict[str, Any] | None]:
    """The document of the first lines, at least `end` and below `most` of them, with their number."""
    while end < most:
        try:
            return end, tomllib.loads("\n".join(lines[:end]))
        except (tomllib.TOMLDecodeError, ValueError):
            end += 1
    return end, None


def _has(document: Any, at: tuple[str, ...]) -> bool:
    for name in at:
        if not isinstance(document, dict) or name not in document:
            return False
        document = document[name]
    return True
