"""Holds the estimate of tokens to erring high: beside what six public tokenizers counted, and by its own rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.orchestrators.token_estimate import most_tokens

TOKENIZERS = ("cl100k_base", "o200k_base", "Claude 2", "DeepSeek V3", "Mistral v1 (SentencePiece)", "Mistral Tekken")
COUNTED = [
    (row["kind"], row["text"], tuple(row["counts"]))
    for row in json.loads(Path(__file__).with_name("token_counts.json").read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("kind", "text", "counts"), COUNTED, ids=[kind for kind, _, _ in COUNTED])
def test_no_public_tokenizer_counts_more_than_the_estimate(kind: str, text: str, counts: tuple[int, ...]) -> None:
    assert len(counts) == len(TOKENIZERS)
    assert max(counts) <= most_tokens(text)


@pytest.mark.parametrize("kind", ["english", "german", "russian", "chinese", "python", "json"])
def test_what_people_write_is_estimated_at_no_more_than_eight_times_the_leanest_count(kind: str) -> None:
    text, counts = next((text, counts) for name, text, counts in COUNTED if name == kind)
    assert most_tokens(text) <= 8 * min(counts)


def test_english_is_estimated_at_two_to_three_times_of_a_token_for_four_letters() -> None:
    text = "Should the city centre be closed to private cars, and if so on which days of the week? " * 20
    assert 2 <= most_tokens(text) / (len(text) / 4) <= 3


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 2),
        ("word", 4),
        ("two words", 7),
        ("a" * 19, 11),
        ("a" * 20, 21),
        ("1234", 5),
        ("{}", 3),
        ("\u5b57", 4),
        ("\U0001f600", 5),
        ("\ud800", 2),
    ],
)
def test_only_runs_of_lowercase_letters_count_less_than_their_bytes(text: str, tokens: int) -> None:
    assert most_tokens(text) == tokens


@given(st.text())
def test_a_text_and_its_bytes_are_estimated_alike(text: str) -> None:
    assert most_tokens(text) == most_tokens(text.encode())


@given(st.text(), st.text())
def test_two_texts_on_lines_of_their_own_are_never_estimated_below_what_they_are_together(
    first: str, second: str
) -> None:
    assert most_tokens(first) + most_tokens("\n" + second) >= most_tokens(first + "\n" + second)


@given(st.text())
def test_the_estimate_lies_between_half_the_bytes_and_all_of_them(text: str) -> None:
    size = len(text.encode())
    assert size / 2 <= most_tokens(text) <= size + 1
