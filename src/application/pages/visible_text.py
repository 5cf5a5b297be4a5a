"""Makes text from outside harmless to a reader: nothing in it moves a cursor, hides, or reverses the reading order."""

from __future__ import annotations

import unicodedata

__all__ = ["visible", "visible_document", "visible_lines"]

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_MAX_MARKS = 4
_CUT = "..."


def visible(text: str, *, limit: int | None = None) -> str:
    """`text` on one line, white space as single spaces, cut to `limit` characters, with every unseen character spelt out.

    Spelt out as `\\x1b` or `\\u202e` are controls, bidirectional and other format characters (Unicode Cc, Cf, Co, Cs, Cn), and
    combining marks beyond four on one letter. Joiners stay where scripts and emoji need them: between two characters that
    are not ASCII.
    """
    # An escape is up to ten characters long, so that this many are enough whatever they hold.
    cut = limit is not None and len(text) > limit
    text = " ".join(text[:limit].split() if limit is not None else text.split())
    if text.isascii() and text.isprintable():
        # Most texts, and looking at each character of them takes thirty times as long.
        return text + (_CUT if cut else "")
    shown: list[str] = []
    marks = 0
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if character == " " or (character.isprintable() and marks <= _MAX_MARKS) or _joins(text, place):
            shown.append(character)
        else:
            shown.append(_spelt_out(character))
    return "".join(shown) + (_CUT if cut else "")


def visible_lines(text: str, *, limit: int | None = None) -> list[str]:
    """The lines of `text`, each made visible, without empty ones at the ends; cut to `limit` characters in all."""
    cut = limit is not None and len(text) > limit
    lines = [visible(line) for line in text[:limit].strip().split("\n")]
    return [*lines[:-1], lines[-1] + _CUT] if cut else lines


def visible_document(text: str) -> str:
    """`text` with every word made visible, and all its lines and spaces as they stand."""
    return "\n".join(" ".join(visible(word) for word in line.split(" ")) for line in text.split("\n"))


def _joins(text: str, place: int) -> bool:
    if text[place] not in _JOINERS or not 0 < place < len(text) - 1:
        return False
    before, after = text[place - 1], text[place + 1]
    return all(not neighbour.isascii() and neighbour.isprintable() for neighbour in (before, after))


def _spelt_out(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
