"""Canonical JSON is written as RFC 8785 wants it, whatever the encoder, and nothing else is accepted for it."""

from __future__ import annotations

import enum
import json
import math
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from domain.errors.witness import VerificationRefusedError
from infrastructure.witness.canonical_json import canonical_json, parse_canonical

_EXACT = 2**53 - 1
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_SCALARS = (
    st.none() | st.booleans() | st.integers(-_EXACT, _EXACT) | st.floats(allow_nan=False, allow_infinity=False) | _TEXT
)
_DOCUMENTS = st.dictionaries(
    _TEXT,
    st.recursive(
        _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4), max_leaves=12
    ),
    max_size=8,
)


class _State(enum.StrEnum):
    ANSWERED = "answered"


# RFC 8785 appendix B: the bits of a double, and how it is written.
_NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "written"), _NUMBERS)
def test_a_number_is_written_as_the_rfc_shows(bits: str, written: str) -> None:
    number = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert canonical_json({"n": number}) == f'{{"n":{written}}}'.encode()
    assert canonical_json([number]) == f"[{written}]".encode()


def test_the_rfc_example_of_numbers_strings_and_literals_is_written_as_shown() -> None:
    document = json.loads(
        r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    )
    # RFC 8785 section 3.2.4 gives these bytes.
    shown = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(document) == shown.encode()


def test_the_rfc_example_of_sorting_keeps_the_order_of_utf16_units() -> None:
    document = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = list(json.loads(canonical_json(document)))
    assert order == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@given(_DOCUMENTS)
@settings(max_examples=200, derandomize=True, deadline=None)
@example({"a": -0.0, "b": 1e16, "c": 1e-5, "d": [0.0001, 1e21], "e": _EXACT, "f": -_EXACT})
@example({"\ue000": 1, "\U00010000": 2})
@example({"\x7f\u2028": '\x00\x1f\x7f\u2028"\\/'})
def test_every_document_is_written_as_the_reference_encoder_writes_it_and_read_back(document: dict[str, Any]) -> None:
    written = canonical_json(document)
    assert written == rfc8785.dumps(document)
    assert parse_canonical(written) == document


@given(
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60).map(float) | st.floats(1e-7, 1e-3)
)
@settings(max_examples=500, derandomize=True, deadline=None)
def test_every_double_is_written_as_the_reference_encoder_writes_it(number: float) -> None:
    assert canonical_json({"n": number}) == rfc8785.dumps({"n": number})


def test_a_tuple_is_written_as_a_list_and_a_word_of_an_enumeration_as_its_text() -> None:
    assert canonical_json({"of": (1, 2.0, "x"), "state": _State.ANSWERED}) == b'{"of":[1,2,"x"],"state":"answered"}'


def test_writing_leaves_the_document_as_it_was() -> None:
    document = {"number": 2.0, "inner": {"state": _State.ANSWERED}, "list": [1.0]}
    canonical_json(document)
    assert type(document["number"]) is float
    assert document["inner"] == {"state": _State.ANSWERED}
    assert type(document["list"][0]) is float  # type: ignore[index]


def _nested(depth: int) -> list[Any]:
    document: list[Any] = []
    for _ in range(depth):
        document = [document]
    return document


@pytest.mark.parametrize(
    "document",
    [
        {"n": math.nan},
        {"n": math.inf},
        {"n": [-math.inf]},
        {"n": _EXACT + 1},
        {"n": -_EXACT - 1},
        {"n": 2**64},
        {"text": "\ud800"},
        {"\udfff": 1},
        {1: "a key that is no text"},
        {"set": {1}},
        {"bytes": b"x"},
        {"object": object()},
        _nested(100_000),
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, list) else "nested",
)
def test_what_has_no_canonical_form_is_refused(document: Any) -> None:
    with pytest.raises(ValueError, match="no canonical form"):
        canonical_json(document)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not JSON"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1} ', "at byte 7"),
        (b' {"a":1}', "at byte 0"),
        (b'{"a":1}\n', "at byte 7"),
        (b'{"a":1}{}', "not JSON"),
        (b'{"b":1,"a":2}', "at byte 2"),
        (b'{"a": 1}', "at byte 5"),
        (b'{"a":1.0}', "at byte 6"),
        (b'{"a":1e2}', "canonical form at byte 6"),
        (b'{"a":-0}', "at byte 5"),
        (b'{"a":0.50}', "at byte 8"),
        (b'{"a":1e400}', "not representable"),
        (b'{"a":9007199254740993}', "at byte 20"),
        (b'{"a":NaN}', "NaN is no JSON number"),
        (b'{"a":-Infinity}', "no JSON number"),
        (b'{"a":1,"a":1}', "'a' stands twice"),
        (b'{"a":{"b":1,"b":2}}', "'b' stands twice"),
        (rb'{"a":"\u0041"}', "at byte 6"),
        (rb'{"a":"\/"}', "at byte 6"),
        (rb'{"a":"\ud800"}', "non-UTF-8"),
        (rb'{"a":"\u000A"}', "canonical form"),
        ('{"\ue000":1,"\U00010000":2}'.encode(), "canonical form"),
        (b'\xef\xbb\xbf{"a":1}', "not JSON"),
        ('{"a":1}'.encode("utf-16"), "UTF-8"),
        (b'{"a":"\xff"}', "byte 6 is not UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        (b"[1]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' + b"1" * 5000 + b"}", "not canonical"),
        (rb'{"\ud800":1}', "surrogate"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_anything_but_the_canonical_form_is_refused_by_name(data: bytes, what: str) -> None:
    with pytest.raises(VerificationRefusedError, match=what):
        parse_canonical(data)


@pytest.mark.parametrize(
    "document", [{}, {"a": 1e30, "b": 123456789012345678.0}, {"emoji 😀": "😀"}, {"hash": "1234567890" * 6}]
)
def test_a_canonical_form_that_needs_the_reference_encoder_is_accepted(document: dict[str, Any]) -> None:
    assert parse_canonical(rfc8785.dumps(document)) == document


@given(_DOCUMENTS, st.data())
@settings(max_examples=150, derandomize=True, deadline=None)
def test_a_changed_byte_never_passes_for_the_same_document(document: dict[str, Any], data: st.DataObject) -> None:
    written = bytearray(canonical_json(document))
    place = data.draw(st.integers(0, len(written) - 1))
    written[place] ^= data.draw(st.integers(1, 255))
    try:
        found = parse_canonical(bytes(written))
    except VerificationRefusedError:
        return
    assert rfc8785.dumps(found) == bytes(written)
