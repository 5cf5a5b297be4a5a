"""Texts from outside as Markdown: each is read as what it is, and nothing in it is hidden."""

from __future__ import annotations

import pytest

from application.pages.markdown import NOTHING, block, inline


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("yes", "yes"),
        ("汽车 und Räder", "汽车 und Räder"),
        ("a\x00b\x1b[2J", r"a\\x00b\\x1b\[2J"),
        ("yes\u202eon", r"yes\\u202eon"),
        ("one\u200btwo", r"one\\u200btwo"),
        ("soft\u00adhyphen", r"soft\\xadhyphen"),
        ("tag\U000e0041", r"tag\\U000e0041"),
    ],
)
def test_what_nobody_would_see_is_spelt_out(text: str, written: str) -> None:
    assert inline(text) == written
    assert list(block(text)) == [written]


def test_a_value_is_on_one_line_and_a_block_keeps_its_lines_and_spaces() -> None:
    text = "first\u2028  second  one\n\nthird"
    assert inline(text) == "first second one third"
    assert list(block(text)) == ["first  ", "&nbsp;&nbsp;second  one  ", "", "third"]


def test_where_there_is_nothing_a_dash_says_so() -> None:
    assert (inline(None), inline(""), inline(" \n")) == (NOTHING, NOTHING, NOTHING)
