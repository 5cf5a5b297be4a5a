"""Estimates tokens where nobody counted them, so that the estimate errs high and needs no model's vocabulary."""

from __future__ import annotations

__all__ = ["TOKENS_A_CALL", "most_tokens"]

TOKENS_A_CALL = 64
"""What a call takes besides its texts: the marks around two messages, and a sentence that some providers add to ask for JSON."""

_LONGEST_WORD = 19
_ONLY_LOWER = bytes(byte if ord("a") <= byte <= ord("z") else ord(" ") for byte in range(256))


def most_tokens(text: str | bytes) -> int:
    """At most so many tokens has `text` (bytes are UTF-8), whichever of the public tokenizers counts them.

    A token for each byte, but in a run of up to 19 lowercase ASCII letters half a one for each letter after the first; and one for
    the blank that SentencePiece puts before a text. Nothing for no text.

    Byte pair encoding, and SentencePiece where it falls back to bytes, never make a token of less than a byte. So everything but
    those runs is counted as the worst vocabulary has it: digits and signs one by one, rare Chinese characters in three, new emoji
    in four, as they do occur. Every vocabulary of the last years holds nearly all pairs of lowercase letters, and what is set apart
    by case, digits or signs (hexadecimal digits, base64) has runs too short to be counted as less than it takes. Runs that are
    longer than words are not taken for words. English prose comes out at about three times of what it takes, code at twice, Chinese
    at two to three times.
    """
    data = text.encode(errors="replace") if isinstance(text, str) else text
    if not data:
        return 0
    lengths = list(map(len, data.translate(_ONLY_LOWER).split()))
    if lengths and max(lengths) > _LONGEST_WORD:
        lengths = [length for length in lengths if length <= _LONGEST_WORD]
    return 1 + len(data) - (sum(lengths) - len(lengths)) // 2
