"""Writes and recognises canonical JSON (RFC 8785), the bytes that are hashed into the witness log."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import rfc8785

from domain.errors.witness import VerificationRefusedError

__all__ = ["canonical_json", "parse_canonical", "read_json"]

_SCALARS = frozenset({str, int, bool, type(None)})
_WRITING = (
    orjson.OPT_SORT_KEYS
    | orjson.OPT_STRICT_INTEGER
    | orjson.OPT_PASSTHROUGH_SUBCLASS
    | orjson.OPT_PASSTHROUGH_DATACLASS
    | orjson.OPT_PASSTHROUGH_DATETIME
)
_LARGEST_EXACT = 2**53 - 1
# From here up and down to here the shortest digits are written without an exponent by every encoder.
_SMALLEST_PLAIN = 1e-4
# UTF-16 order, which RFC 8785 wants, is code point order unless something lies beyond the basic plane.
_BEYOND_BASIC_PLANE = re.compile(rb"[\xf0-\xf4]")
# Every integer of so many digits is exact in a double.
_MOST_DIGITS = 15


class _InDoubtError(Exception):
    """The fast way is not known to give the canonical form; the reference encoder decides."""


def canonical_json(document: Any) -> bytes:
    """The one canonical form of a JSON value (RFC 8785), in UTF-8.

    Takes dictionaries with keys that are text, lists, tuples, text, integers, floats, booleans and None. Raises `ValueError` for what
    has no such form: integers beyond 2**53 - 1, NaN, infinities, lone surrogates, other types, and nesting without end.
    """
    try:
        data = orjson.dumps(_plain(document), option=_WRITING)
    except (_InDoubtError, orjson.JSONEncodeError, RecursionError):
        return _reference_form(document)
    if not data.isascii() and _BEYOND_BASIC_PLANE.search(data):
        return _reference_form(document)
    return data


def _plain(value: Any) -> Any:
    """The same value, in which every number and text is of a kind that both encoders write alike; copied only where it differs."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind is dict:
        return _plain_object(value)
    if kind is list or kind is tuple:
        return value if _SCALARS.issuperset(map(type, value)) else [_plain(inner) for inner in value]
    if kind is float:
        return _plain_number(value)
    if isinstance(value, str):
        return str.__str__(value)
    raise _InDoubtError


def _plain_object(members: dict[Any, Any]) -> dict[Any, Any]:
    plain_members = members
    for key, inner in members.items():
        kind = type(inner)
        # Spelt out because this runs for every field of every entry: a look into the set takes longer.
        if kind is str or kind is int or inner is None or kind is bool:
            continue
        plain = _plain_object(inner) if kind is dict else _plain(inner)
        if plain is not inner:
            if plain_members is members:
                plain_members = members.copy()
            plain_members[key] = plain
    return plain_members


def _plain_number(number: float) -> float | int:
    size = abs(number)
    if size <= _LARGEST_EXACT:
        if number.is_integer():
            return int(number)
        if size >= _SMALLEST_PLAIN:
            return number
    raise _InDoubtError


def _reference_form(document: Any) -> bytes:
    try:
        return rfc8785.dumps(document)
    except RecursionError as error:
        raise ValueError("the document has no canonical form: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("the document has no canonical form: its text holds a lone surrogate") from error
    except ValueError as error:
        raise ValueError(f"the document has no canonical form (RFC 8785): {error}") from error


def read_json(data: bytes) -> Any:
    """The value that is written in `data`, canonical or not: several times as fast as the standard library. Raises `ValueError`."""
    return orjson.loads(data)


def parse_canonical(data: bytes) -> dict[str, Any]:
    """The object that is written in `data`. Raises `VerificationRefusedError` unless `data` is exactly its canonical form.

    Shares nothing with `canonical_json` but the reference encoder, so that a mistake of the writer does not pass for valid.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise VerificationRefusedError(f"not canonical JSON: byte {error.start} is not UTF-8") from error
    try:
        document = _READER.decode(text)
        proven = _WRITER.encode(document) == text
    except (_InDoubtError, ValueError, RecursionError):
        proven = False
    if not proven or (not data.isascii() and _BEYOND_BASIC_PLANE.search(data)):
        document = _strictly_parsed(text, data)
    if type(document) is not dict:
        raise VerificationRefusedError(f"not a JSON object but of type {type(document).__name__!r}")
    return document


def _strictly_parsed(text: str, data: bytes) -> Any:
    try:
        document = _STRICT_READER.decode(text)
        canonical = rfc8785.dumps(document)
    except RecursionError as error:
        raise VerificationRefusedError("not canonical JSON: it is nested too deeply") from error
    except UnicodeEncodeError as error:
        raise VerificationRefusedError("not canonical JSON: its text holds a lone surrogate") from error
    except json.JSONDecodeError as error:
        raise VerificationRefusedError(f"not JSON: {error.msg} at character {error.pos}") from error
    except ValueError as error:
        raise VerificationRefusedError(f"not canonical JSON: {error}") from error
    if canonical != data:
        place = next((at for at, (a, b) in enumerate(zip(canonical, data, strict=False)) if a != b), None)
        raise VerificationRefusedError(
            "not canonical JSON (RFC 8785): "
            f"it departs from the canonical form at byte {min(len(canonical), len(data)) if place is None else place}"
        )
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice in one object")
            seen.add(key)
    return document


def _refused_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _plain_literal(literal: str) -> float:
    """The number, when its literal is what Python writes too and RFC 8785 agrees: no exponent, no integer."""
    number = float(literal)
    if repr(number) != literal or "e" in literal or literal.endswith(".0"):
        raise _InDoubtError
    return number


def _short_literal(literal: str) -> int:
    if len(literal) > _MOST_DIGITS:
        raise _InDoubtError
    return int(literal)


def _exact_or_double(literal: str) -> int | float:
    """The number as RFC 8785 sees it: beyond the exact integers a double, so that a literal which is not its shortest form shows."""
    number = int(literal) if len(literal) <= _MOST_DIGITS + 2 else float(literal)
    return number if abs(number) <= _LARGEST_EXACT else float(literal)


_STRICT_READER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_int=_exact_or_double, parse_constant=_refused_constant
)
_READER = json.JSONDecoder(parse_float=_plain_literal, parse_int=_short_literal, parse_constant=_refused_constant)
_WRITER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
