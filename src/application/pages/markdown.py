"""Markdown of texts from outside, none of which can stand for anything but itself: no markup, no link, no other line or order.

What a reader would not see is spelt out, as on all pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from application.pages.visible_text import visible, visible_document

__all__ = ["NOTHING", "block", "inline", "table"]

NOTHING = "–"
"""What stands where there is nothing."""

_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_MARKUP = re.compile(r"[\\`*_\[\]|~#$!^]")
# A list item, the line under a heading, a rule, or the second line of a table.
_BLOCK_MARK = re.compile(r"[-+](?=\s|$)|[-=:](?=[-=:\s]*$)|[0-9]+(?=[.)](?:\s|$))")
_SCHEME = re.compile(r":(?=//)")
_WWW = re.compile(r"(?i)\bwww\.")
_MAIL = re.compile(r"(?<=\S)@(?=\S)")


def inline(value: Any) -> str:
    """A value on one line, in which no character means anything to Markdown or HTML."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _unmarked(_escaped(visible(str(value)))) or NOTHING


def block(text: str) -> Iterator[str]:
    """A text line by line; what would begin a block, such as a list or an underlined heading, is escaped."""
    lines = text.splitlines() or [""]
    for number, line in enumerate(lines):
        indented = len(line) - len(line.lstrip())
        rest = _unmarked(_escaped(visible_document(line.strip())))
        # Two spaces at the end keep the line apart from the next.
        yield "&nbsp;" * indented + rest + ("  " if rest and number < len(lines) - 1 else "")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table line by line; its cells are Markdown already."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{' --- |' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _unmarked(line: str) -> str:
    """The line with an escape in what would begin a block there."""
    mark = _BLOCK_MARK.match(line)
    if mark is None:
        return line
    digits = mark.end() if mark.group().isdigit() else 0
    return f"{line[:digits]}\\{line[digits:]}"


def _escaped(text: str) -> str:
    escaped = "".join(_HTML.get(character, character) for character in text)
    escaped = _MARKUP.sub(lambda found: f"\\{found.group()}", escaped)
    # A bare address is a link in many renderers, and the word joiner keeps one of mail from being one.
    escaped = _SCHEME.sub(r"\\:", escaped)
    escaped = _WWW.sub(lambda found: f"{found.group()[:-1]}\\.", escaped)
    return _MAIL.sub("@&#8288;", escaped)
