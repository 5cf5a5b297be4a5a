"""Bounds on text that comes from outside: what is too long, empty, unseen, or cannot be stored and shown."""

from __future__ import annotations

import unicodedata

__all__ = [
    "MAX_CONTEXT_BYTES",
    "MAX_OPTION_BYTES",
    "MAX_OUTPUT_BYTES",
    "MAX_PERSONA_BYTES",
    "MAX_QUESTION_BYTES",
    "clean",
    "cut_to_bytes",
    "fold",
    "is_visible",
    "text_problem",
]

MAX_QUESTION_BYTES = 32 * 1024
MAX_CONTEXT_BYTES = 512 * 1024
MAX_PERSONA_BYTES = 8 * 1024
MAX_OPTION_BYTES = 1024
MAX_OUTPUT_BYTES = 64 * 1024

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
# Drawn as nothing although their category does not say so: the other ignorable ones (DerivedCoreProperties of Unicode,
# Default_Ignorable_Code_Point), and the empty pattern of Braille.
_UNSEEN = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))))
)


def text_problem(text: str, *, max_bytes: int) -> str | None:
    """What keeps `text` from being accepted, or None. Sizes are bytes of UTF-8."""
    if not text.strip():
        return "must not be empty"
    if "\x00" in text:
        return "must not hold a NUL character"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "must not hold a lone surrogate"
    if size > max_bytes:
        return f"is {size} bytes long, at most {max_bytes} are taken"
    return None if is_visible(text) else "must hold a visible character"


def is_visible(text: str) -> bool:
    """Whether a reader sees anything of `text`: a character that is no space, no control, no format character and not ignorable."""
    return any(
        character not in _UNSEEN and unicodedata.category(character) not in _UNSEEN_CATEGORIES for character in text
    )


def clean(text: str) -> str:
    """`text` with NULs and lone surrogates replaced by U+FFFD: no database stores them and no reader can show them."""
    if "\x00" in text:
        text = text.replace("\x00", _REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join(_REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def cut_to_bytes(text: str, max_bytes: int) -> tuple[str, bool]:
    """The longest prefix of `text` of at most `max_bytes` bytes of UTF-8, and whether anything was cut."""
    if len(text) * 4 <= max_bytes:
        return text, False
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text, False
    return encoded[:max_bytes].decode(errors="ignore"), True


def fold(text: str) -> str:
    """`text` as a reader would confuse it with others: compatibility-normalised, caseless, with single spaces (UAX 15, UTS 39)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(
        " " if character.isspace() else character
        for character in folded
        if character.isspace() or unicodedata.category(character) not in {"Cf", "Cc"}
    )
    return " ".join(visible.split())
