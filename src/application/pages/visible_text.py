"""Makes text from outside harmless to a reader: nothing in it moves a cursor, hides, or reverses the reading order."""

from __future__ import annotations

import unicodedata

__all__ = ["visible", "visible_document", "visible_lines"]

_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
_MAX_MARKS = 4
_CUT = "..."
# `\\U000e0041`
_MOST_OF_A_CHARACTER = 10
# `<p><bdi></bdi></p>` and the end of its line.
_SIZE_OF_A_PARAGRAPH = 20


def visible(text: str, *, limit: int | None = None, size: int | None = None) -> str:
    """`text` on one line, white space as single spaces, cut to `limit` characters, with every unseen character spelt out.

    Cut once more to `size` bytes of what is sent, which is HTML in UTF-8: what is spelt out and escaped is up to ten times as long
    as what was given.

    Spelt out as `\\x1b` or `\\u202e` are controls, bidirectional and other format characters (Unicode Cc, Cf, Co, Cs, Cn), and
    combining marks beyond four on one letter. Joiners stay where scripts and emoji need them: between two characters that
    are not ASCII.
    """
    # An escape is up to ten characters long, so that this many are enough whatever they hold.
    cut = limit is not None and len(text) > limit
    text = " ".join(text[:limit].split() if limit is not None else text.split())
    if text.isascii() and text.isprintable():
        # Most texts, and looking at each character of them takes thirty times as long.
        return _within(text, size, cut=cut)
    shown: list[str] = []
    marks = 0
    room = len(text) * _MOST_OF_A_CHARACTER if size is None else size
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.category(character).startswith("M") else 0
        if character == " " or (character.isprintable() and marks <= _MAX_MARKS) or _joins(text, place):
            shown.append(character)
        else:
            shown.append(_spelt_out(character))
        room -= len(shown[-1])
        if room < 0:
            # What follows would be cut.
            break
    return _within(shown, size, cut=cut)


def visible_lines(text: str, *, limit: int | None = None, size: int | None = None) -> list[str]:
    """The lines of `text`, each made visible, without empty ones at the ends; cut to `limit` characters in all.

    Cut once more to `size` bytes of what is sent, each line that says something being a paragraph of HTML.
    """
    cut = limit is not None and len(text) > limit
    text = text[:limit].strip()
    if size is None or _SIZE_OF_A_PARAGRAPH * (text.count("\n") + 2) + _MOST_OF_A_CHARACTER * len(text) <= size:
        lines = [visible(line) for line in text.split("\n")]
        return [*lines[:-1], lines[-1] + _CUT] if cut else lines
    return _paragraphs(text + (_CUT if cut else ""), size)


def visible_document(text: str) -> str:
    """`text` with every word made visible, and all its lines and spaces as they stand."""
    return "\n".join(" ".join(visible(word) for word in line.split(" ")) for line in text.split("\n"))


def _size_of(text: str) -> int:
    """How many bytes of HTML it takes, by the longest ways to escape it."""
    sent = text.encode()
    return (
        len(sent)
        + 5 * (sent.count(b'"') + sent.count(b"'"))
        + 4 * sent.count(b"&")
        + 3 * (sent.count(b"<") + sent.count(b">"))
    )


def _within(parts: str | list[str], size: int | None, *, cut: bool) -> str:
    """The parts one after another as far as they take at most `size` bytes of HTML; told where they are `cut`, here or before."""
    whole = "".join(parts)
    if size is None or _size_of(whole) <= size:
        return whole + (_CUT if cut else "")
    return _beginning(parts, size - len(_CUT)) + _CUT


def _beginning(parts: str | list[str], size: int) -> str:
    # By many parts as long as there is room for them, because measuring each one takes thirty times as long.
    begun = 0
    for many in (1_024, 32, 1):
        while begun < len(parts) and (taken := _size_of("".join(parts[begun : begun + many]))) <= size:
            size -= taken
            begun += many
    return "".join(parts[:begun])


def _paragraphs(text: str, size: int) -> list[str]:
    """The lines as far as they take at most `size` bytes as paragraphs; that they are cut is told in the last one, or in one of its own."""
    left = size - _SIZE_OF_A_PARAGRAPH - len(_CUT)
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.strip():
            lines.append("")
            continue
        room = left - _SIZE_OF_A_PARAGRAPH
        if room < len(_CUT):
            return [*lines, _CUT]
        # No more of it is looked through than there may be room for.
        told = visible(line, limit=room, size=room)
        lines.append(told)
        if told.endswith(_CUT) and (len(line) > room or _size_of(visible(line)) > room):
            return lines
        left -= _SIZE_OF_A_PARAGRAPH + _size_of(told)
    return lines


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
