"""Bounds on text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.models.text import clean, cut_to_bytes, fold, text_problem


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
