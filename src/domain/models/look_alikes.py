"""Look-alikes: whether two texts differ in nothing but case, spaces and characters that a reader takes for each other (UTS 39)."""

from __future__ import annotations

import unicodedata

from domain.models.text import fold

__all__ = ["look_alike_keys"]

# Of other scripts, and of the Latin script beyond ASCII: what is drawn as an ASCII letter is drawn.
_DRAWN_AS = {
    "a": "аɑα",
    "c": "сϲᴄ",
    "d": "ԁ",
    "e": "еҽ",
    "g": "ɡ",
    "h": "һհ",
    "i": "іıι",
    "j": "јϳ",
    "k": "κ",
    "l": "ӏ",
    "n": "ո",
    "o": "оοօᴏ",
    "p": "рρ",
    "q": "ԛ",
    "s": "ѕꜱ",
    "u": "սυᴜ",
    "v": "ѵνᴠ",
    "w": "ԝᴡ",
    "x": "хχ",
    "y": "уүγ",
    "z": "ᴢ",
    "A": "АΑᎪ",
    "B": "ВΒᏴ",
    "C": "СϹᏟ",
    "E": "ЕΕᎬ",
    "F": "Ϝ",
    "G": "ԌᏀ",
    "H": "НΗᎻ",
    "I": "ІΙӀ",
    "J": "ЈͿᎫ",
    "K": "КΚᏦ",
    "L": "Ꮮ",
    "M": "МΜᎷ",
    "N": "Ν",
    "O": "ОΟՕ",
    "P": "РΡᏢ",
    "R": "Ꭱ",
    "S": "ЅՏᏚ",
    "T": "ТΤᎢ",
    "V": "ѴᏙ",
    "W": "ԜᎳ",
    "X": "ХΧ",
    "Y": "ҮΥ",
    "Z": "ΖᏃ",
    "-": "‐‑‒–—―−﹣ー",
    "'": "‘’‛′`´ʹʼˈ",
    '"': "“”‟″〃",
    "/": "∕⁄",
    ":": "։∶ː",
    ".": "․·∙⋅",
    # Drawn as nothing, although they are no spaces by their category.
    " ": "\N{HANGUL FILLER}\N{HANGUL CHOSEONG FILLER}\N{HANGUL JUNGSEONG FILLER}\N{BRAILLE PATTERN BLANK}",
    "": "\N{COMBINING GRAPHEME JOINER}" + "".join(chr(0xFE00 + selector) for selector in range(16)),
}
_LETTERS = {ord(other): drawn for drawn, others in _DRAWN_AS.items() for other in others}
# These are taken for each other only as they are written: in small letters nobody confuses i and l.
_WITHIN_ASCII = str.maketrans({"I": "l", "1": "l", "|": "l", "0": "O"})


def look_alike_keys(text: str) -> tuple[str, str]:
    """Two texts look alike when their first keys are equal, or their second: one for all that case hides, one as it is written."""
    # Twice, because what is drawn as nothing may stand where the normal form would join.
    drawn = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_LETTERS)).translate(_LETTERS)
    plain = fold(drawn).replace(" ", "")
    written = "".join(letter for letter in drawn if letter.isprintable() and not letter.isspace())
    return plain, written.translate(_WITHIN_ASCII)
