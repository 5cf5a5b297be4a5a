"""Bounds on text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.text import clean, cut_to_bytes, fold, is_visible, text_problem


@given(st.text(), st.integers(0, 50))
def test_a_cut_text_is_a_prefix_that_fits(text: str, size: int) -> None:
    cleaned = clean(text)
    cut, was_cut = cut_to_bytes(cleaned, size)
    assert len(cut.encode()) <= size
    assert cleaned.startswith(cut)
    assert was_cut == (cut != cleaned)


@given(st.text(alphabet=st.characters(codec=None)))
def test_a_clean_text_can_be_stored_anywhere(text: str) -> None:
    assert "\x00" not in clean(text)
    clean(text).encode()
    assert len(clean(text)) == len(text)


@pytest.mark.parametrize(
    "pair", [("Yes", "yes"), (" yes ", "yes"), ("a\u00a0b", "a  b"), ("\ufb01n", "FIN"), ("y\u200bes", "yes")]
)
def test_texts_that_read_the_same_fold_to_the_same(pair: tuple[str, str]) -> None:
    assert fold(pair[0]) == fold(pair[1])


def test_the_bound_counts_bytes_not_characters() -> None:
    assert text_problem("\u20ac", max_bytes=3) is None
    assert text_problem("\u20ac", max_bytes=2) == "is 3 bytes long, at most 2 are taken"


UNSEEN = [
    "\u200b",
    "\ufeff",
    "\u202e",
    "\u00ad",
    "\u2060",
    "\u0007",
    "\ufe0f",
    "\u3164",
    "\u2800",
    "\U000e0100",
    "\u2065",
    " \u200b\n",
]


@pytest.mark.parametrize("text", UNSEEN, ids=ascii)
def test_a_text_that_shows_nothing_is_refused(text: str) -> None:
    assert text_problem(text, max_bytes=100) == "must hold a visible character"


@given(st.text(alphabet="".join(UNSEEN), max_size=5), st.text(alphabet="".join(UNSEEN), max_size=5))
def test_one_visible_character_is_enough(before: str, after: str) -> None:
    assert is_visible(f"{before}?{after}")
    assert not is_visible(before + after)
