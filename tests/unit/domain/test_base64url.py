"""Bytes as text that needs no quoting."""

from __future__ import annotations

import pytest

from domain.base64url import base64url, from_base64url


# The examples of RFC 4648 section 10 without their padding, and the two characters in which base64url differs from base64.
@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy"), (b"\xfb\xff", "-_8")],
)
def test_bytes_become_text_without_padding_and_come_back(data: bytes, text: str) -> None:
    assert base64url(data) == text
    assert from_base64url(text) == data


@pytest.mark.parametrize("text", ["Zg==", "Z", "Zh", "Zm8\n", " Zm8", "+/8", "é", "Zm.8"])
def test_what_would_not_have_been_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        from_base64url(text)
