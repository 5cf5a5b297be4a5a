"""Markdown of texts from outside, none of which can stand for anything but itself: no markup, no link, no other line or order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["NOTHING", "block", "inline", "table"]

NOTHING = "–"
"""What stands where there is nothing."""

# Controls and marks of direction could make a reader see another order or another line than stands there.
_UNSEEN = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
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
    text = " ".join(_UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value)).split())
    return _unmarked(_escaped(text)) or NOTHING


def block(text: str) -> Iterator[str]:
    """A text line by line; what would begin a block, such as a list or an underlined heading, is escaped."""
    lines = text.splitlines() or [""]
    for number, line in enumerate(lines):
        written = _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", line)
        indented = len(written) - len(written.lstrip())
        rest = _unmarked(_escaped(written.strip()))
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
