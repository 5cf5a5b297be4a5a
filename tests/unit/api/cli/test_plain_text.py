"""Text from outside on a terminal: everything is seen, nothing acts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cli.plain_text import visible, visible_document, visible_lines


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\x9b31mb", "a\\x9b31mb"),
        ("bell\x07", "bell\\x07"),
        ("yes\u202eon", "yes\\u202eon"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("lone\ud800", "lone\\ud800"),
        ("ab\u200dc", "ab\\u200dc"),
        ("over\rwritten", "over written"),
    ],
)
def test_characters_that_act_or_hide_are_spelt_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


@pytest.mark.parametrize("text", ["Grüße", "汽车", "سلام", "می\u200cخواهم", "👩\u200d💻 code", "❤\ufe0f", "क्षि", "a b"])
def test_ordinary_text_of_any_script_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_white_space_of_every_kind_becomes_single_spaces() -> None:
    assert visible(" a\n\n b\t\u00a0c\u2028d ") == "a b c d"


def test_piled_up_combining_marks_are_spelt_out() -> None:
    assert visible("e" + "\u0301" * 6) == "e" + "\u0301" * 4 + "\\u0301" * 2


def test_what_was_cut_ends_in_dots() -> None:
    assert visible("a" * 20, limit=5) == "aaaaa..."


@given(st.text(max_size=60))
def test_nothing_that_is_shown_is_a_control_or_reverses_the_reading_order(text: str) -> None:
    shown = visible(text)
    assert not [character for character in shown if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not [
        character for character in shown if unicodedata.bidirectional(character) in {"RLO", "LRO", "RLE", "LRE"}
    ]


def test_lines_are_kept_and_each_is_made_visible() -> None:
    assert visible_lines("\nfirst\n\x1bsecond\n\n") == ["first", "\\x1bsecond"]


def test_lines_beyond_the_limit_are_cut_with_dots() -> None:
    assert visible_lines("ab\ncdef", limit=5) == ["ab", "cd..."]


def test_a_document_keeps_its_layout_and_nothing_in_it_acts() -> None:
    assert visible_document("# One\n\n  - a  b\n\x1b[2Jtwo\u202e\n") == "# One\n\n  - a  b\n\\x1b[2Jtwo\\u202e\n"
