"""Cursors: where a page of deliberations was cut, as the text that a caller hands back for the next one."""

from __future__ import annotations

from domain.base64url import base64url, from_base64url
from domain.errors.deliberation import InvalidSpecificationError

__all__ = ["cursor_of", "position_of"]

_MAX_DIGITS = 18


def cursor_of(position: int) -> str:
    """The cursor of a page that was cut before that position."""
    return base64url(str(position).encode())


def position_of(cursor: str) -> int:
    """The position that a page was cut at. Raises `InvalidSpecificationError` for what is no cursor of ours."""
    try:
        text = from_base64url(cursor).decode("ascii")
    except ValueError:
        text = ""
    if not (text.isdecimal() and len(text) <= _MAX_DIGITS and cursor_of(int(text)) == cursor):
        raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")
    return int(text)
