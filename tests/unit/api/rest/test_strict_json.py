"""What is accepted as JSON means the same to every reader; everything else is refused, and none of it repeated."""

from __future__ import annotations

import json

import pytest

from api.rest.strict_json import MAX_DEPTH, MAX_VALUES, MalformedJsonError, UnusableValuesError, read_strict_json


def test_an_ordinary_document_is_read_as_it_stands() -> None:
    document = {"question": "Shall we? ünïcode 🏛", "n": [1, -2.5, 1e3, True, None], "empty": {}}
    assert read_strict_json(json.dumps(document).encode()) == document


def test_an_astral_character_may_be_escaped_as_a_pair() -> None:
    assert read_strict_json(rb'"\ud83c\udfdb"') == "🏛"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"{",
        b"}",
        b"nope",
        b"'single'",
        b'{"a": 1,}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 01}',
        b'{"a": .5}',
        b'{"a": +1}',
        b'{"a": 0x10}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": "raw \x00 nul"}',
        b'{"a": "raw \n line"}',
        b'{"a": "\\x41"}',
        b'{"a": "\\u12"}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xc0\x80"}',
        b'\xef\xbb\xbf{"a": 1}',
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-32-le"),
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "\\u0062": 2}}',
        b"/* comment */ {}",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        read_strict_json(raw)


@pytest.mark.parametrize(
    ("raw", "pointer"),
    [
        (rb'{"a": {"b": ["x", "\u0000"]}}', "/a/b/1"),
        (rb'{"a": "\ud800"}', "/a"),
        (rb'{"a": "\udfff\ud800"}', "/a"),
        (rb'{"a": {"\u0000": 1}}', "/a"),
        (rb'{"\ud800": 1}', ""),
        (b'{"a": 1e400}', "/a"),
        (b'{"a": -1e400}', "/a"),
        (b'{"a": 9223372036854775808}', "/a"),
        (b'{"a": -9223372036854775809}', "/a"),
        (b'{"a": ' + b"9" * 5000 + b"}", "/a"),
        (b'{"a/b~c": 1e999}', "/a~1b~0c"),
        (rb'"\u0000"', ""),
    ],
)
def test_values_that_cannot_be_stored_are_pointed_at(raw: bytes, pointer: str) -> None:
    with pytest.raises(UnusableValuesError) as caught:
        read_strict_json(raw)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]


def test_the_largest_whole_numbers_of_64_bits_are_read() -> None:
    assert read_strict_json(b"[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]


def test_every_unusable_value_is_named() -> None:
    with pytest.raises(UnusableValuesError) as caught:
        read_strict_json(rb'{"a": "\u0000", "b": 1e999, "c": ["\ud800"]}')
    assert [problem.pointer for problem in caught.value.problems] == ["/a", "/b", "/c/0"]


def test_the_deepest_allowed_nesting_is_read() -> None:
    assert read_strict_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_one_level_more_is_malformed() -> None:
    with pytest.raises(MalformedJsonError, match="levels deep"):
        read_strict_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_as_many_values_as_allowed_are_read() -> None:
    assert len(read_strict_json(b"[" + b",".join([b"0"] * MAX_VALUES) + b"]")) == MAX_VALUES


def test_one_value_more_is_refused() -> None:
    with pytest.raises(UnusableValuesError, match="1 value"):
        read_strict_json(b"[" + b",".join([b"0"] * (MAX_VALUES + 1)) + b"]")


@pytest.mark.parametrize(
    "text",
    ["[" * 40, "{" * 40, "," * 30_000, '\\"[[[', '"', "\\", "]" * 40],
    ids=["[", "{", ",", "quote", "a quote", "\\", "]"],
)
def test_brackets_and_commas_in_a_text_are_text(text: str) -> None:
    assert read_strict_json(json.dumps({"a": text, text: "b"}).encode()) == {"a": text, text: "b"}


@pytest.mark.parametrize(
    "raw", [b'"' + rb"\"" * 500_000, b'"' + rb"\"" * 400_000 + b"\\", b'"' * 1_000_001, b"]" * 1_000_000]
)
def test_a_megabyte_of_quotes_is_refused_as_fast_as_anything(raw: bytes) -> None:
    with pytest.raises(MalformedJsonError):
        read_strict_json(raw)


@pytest.mark.parametrize(
    "raw", [b'{"secret-marker": NaN}', b'{"secret-marker": 1, "secret-marker": 2}', b'["secret-marker" "x"]']
)
def test_a_refusal_repeats_nothing_of_the_text(raw: bytes) -> None:
    with pytest.raises(MalformedJsonError) as caught:
        read_strict_json(raw)
    assert "secret-marker" not in str(caught.value)
