"""Reads the JSON around the entries so strictly that a document means the same to everybody, or is refused."""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from domain.errors.witness import VerificationRefusedError

__all__ = ["read_hash", "read_object", "shown", "want_fields"]

_SHOWN = 80
_MOST_DIGITS = 400
_HASH_DIGITS = 64
_DIGITS = frozenset("0123456789abcdef")


def read_object(raw: bytes, *, what: str) -> dict[str, Any]:
    """The only JSON object in `raw`.

    Raises `VerificationRefusedError` for anything that is not UTF-8, JSON and an object, for NaN and Infinity, and for an object in which a
    name stands twice.
    """
    if raw.startswith(codecs.BOM_UTF8):
        raise VerificationRefusedError(f"{what} begins with a byte order mark (BOM): save it as UTF-8 without one")
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_distinct, parse_int=_integer, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        raise VerificationRefusedError(f"{what} is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise VerificationRefusedError(
            f"{what} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise VerificationRefusedError(f"{what} is nested too deeply") from error
    except ValueError as error:
        raise VerificationRefusedError(f"{what} is not usable JSON: {error}") from error
    if type(document) is not dict:
        raise VerificationRefusedError(f"{what} is not a JSON object", evidence={"found": shown(document)})
    return document


def want_fields(
    document: Mapping[str, Any], fields: Mapping[str, type], *, what: str, index: int | None = None
) -> None:
    """Raise `VerificationRefusedError` unless exactly these fields are there, each exactly of its type."""
    for name in document:
        if name not in fields:
            raise VerificationRefusedError(f"{what} has an unknown field {shown(name)}", index=index)
    for name, kind in fields.items():
        if name not in document:
            raise VerificationRefusedError(f"{what} lacks the field {name!r}", index=index)
        if type(document[name]) is not kind:
            raise VerificationRefusedError(
                f"{name!r} of {what} has another type than it must",
                index=index,
                evidence={"found": shown(document[name])},
            )


def read_hash(value: object, *, what: str, index: int | None = None) -> bytes:
    """The 32 bytes that 64 lower-case hexadecimal digits stand for. Raises `VerificationRefusedError`."""
    if type(value) is not str or len(value) != _HASH_DIGITS or not _DIGITS.issuperset(value):
        raise VerificationRefusedError(
            f"{what} is not a hash of {_HASH_DIGITS} lower-case hexadecimal digits",
            index=index,
            evidence={"found": shown(value)},
        )
    return bytes.fromhex(value)


def shown(value: object) -> str:
    """A value as evidence: cut to what a line can hold."""
    text = json.dumps(value) if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the name {shown(name)} stands twice in one object")
            seen.add(name)
    return members


def _integer(literal: str) -> int:
    if len(literal) > _MOST_DIGITS:
        raise ValueError(f"an integer of {len(literal)} digits is longer than any that is written here")
    return int(literal)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
