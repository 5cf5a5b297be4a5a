"""Text from outside is cut to what a page may take of it, as it is sent: spelt out, escaped and in UTF-8."""

from __future__ import annotations

from html import escape

import pytest

from application.pages.visible_text import visible, visible_lines

LONG = ["\u202e" * 5_000, '"' * 5_000, "<&>'" * 2_000, "\U000e0041" * 3_000, "首" * 4_000, "a" * 9_000, "😀 " * 4_000]
LINES = ["a\n" * 5_000, "\n" * 5_000 + "end", "\u202e\n\u202e" * 3_000, "word " * 2_000 + "\n" + "x" * 3_000]


@pytest.mark.parametrize("text", LONG, ids=ascii)
@pytest.mark.parametrize("size", [60, 400, 2_000])
def test_a_text_takes_no_more_bytes_of_html_than_it_may(text: str, size: int) -> None:
    told = visible(text, size=size)
    assert size - 24 <= len(escape(told).encode()) <= size
    assert told.endswith("...")


@pytest.mark.parametrize("text", [*LONG, *LINES], ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize("size", [60, 400, 2_000])
def test_paragraphs_take_no_more_bytes_of_html_than_they_may(text: str, size: int) -> None:
    lines = [line for line in visible_lines(text, size=size) if line]
    assert len("".join(f"<p><bdi>{escape(line)}</bdi></p>\n" for line in lines).encode()) <= size
    assert lines[-1].endswith("...") or lines == ["end"]


@pytest.mark.parametrize("text", ["", "short", "two\nlines", 'she said "no"', "日本語 \u202e"])
def test_a_text_that_is_small_enough_is_whole(text: str) -> None:
    assert visible(text, size=200) == visible(text)
    assert visible_lines(text, size=200) == visible_lines(text)


def test_what_is_spelt_out_is_not_cut_in_its_middle() -> None:
    assert visible("\u202e" * 100, size=40) == "\\u202e" * 6 + "..."


def test_a_text_that_its_characters_cut_already_says_so_once() -> None:
    assert visible("abcdef", limit=3, size=100) == "abc..."
    assert visible_lines("abc\ndef", limit=5, size=100) == ["abc", "d..."]
