"""Bytes as text that needs no quoting in addresses, headers and JSON: base64url without padding (RFC 4648 section 5)."""

from __future__ import annotations

import base64

__all__ = ["base64url", "from_base64url"]


def base64url(data: bytes) -> str:
    """The bytes in letters, digits, `-` and `_`."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def from_base64url(text: str) -> bytes:
    """The bytes that `base64url` made this text of. Raises `ValueError` for what it would not have written."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64url(data) != text:
        raise ValueError("it is not written as base64url writes it")
    return data
