"""Reads JSON as strictly as RFC 8259 and I-JSON (RFC 7493) allow, so that what is accepted means the same to everyone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import islice
from typing import Any, NoReturn

from domain.counted import counted
from domain.errors.deliberation import FieldProblem

__all__ = ["MAX_DEPTH", "MAX_VALUES", "MalformedJsonError", "UnusableValuesError", "read_strict_json"]

MAX_DEPTH = 32
MAX_VALUES = 20_000
_MAX_PROBLEMS = 50
_LARGEST = 2**63
# A string that is never closed reaches to the end, or each escaped quote in it would be tried as a beginning.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.|\\\Z)*+(?:"|\Z)', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")


class MalformedJsonError(Exception):
    """The text is no JSON, or JSON that readers disagree about. The message says where, and repeats nothing of it."""


class UnusableValuesError(Exception):
    """It is JSON, but holds values that cannot be stored or compared; `problems` points at them (RFC 6901)."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__(f"{counted(len(problems), 'value')} cannot be used")
        self.problems = tuple(problems)


def read_strict_json(raw: bytes) -> Any:
    """The document in `raw`.

    Raises `MalformedJsonError` for anything but UTF-8 JSON without byte order mark, duplicate names, NaN and Infinity, at most
    32 levels deep; `UnusableValuesError` for NUL, lone surrogates, numbers beyond 64 bits and more than 20,000 values.
    """
    _check_shape(raw)
    try:
        document = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_int=_integer
        )
    except UnicodeDecodeError as error:
        raise MalformedJsonError(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedJsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None
    _check_values(document)
    return document


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise MalformedJsonError("an object has the same name twice")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise MalformedJsonError("NaN and Infinity are not JSON")


def _integer(digits: str) -> float:
    """Not even converted when it is beyond 64 bits: the time that takes grows with the square of the digits."""
    return int(digits) if len(digits) <= 20 else math.inf


def _check_shape(raw: bytes) -> None:
    """Look at the brackets and commas alone: the parser would hold up everybody with a megabyte of them, and then the memory.

    A value more takes a comma or an opening bracket more, so their number bounds that of the values.
    """
    shape = _STRING.sub(b"", raw)
    depth = 0
    for bracket in islice(_BRACKET.finditer(shape), 2 * MAX_VALUES):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > MAX_DEPTH:
            raise MalformedJsonError(f"it is more than {MAX_DEPTH} levels deep")
    if shape.count(b",") + shape.count(b"[") + shape.count(b"{") > MAX_VALUES:
        raise UnusableValuesError([FieldProblem("", f"holds more than {MAX_VALUES} values")])


def _check_values(document: Any) -> None:
    problems: list[FieldProblem] = []
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    while waiting and len(problems) < _MAX_PROBLEMS:
        value, path = waiting.pop()
        if isinstance(value, dict | list):
            if isinstance(value, dict):
                wrong = {problem: None for name in value if (problem := _text_problem(name))}
                problems += [FieldProblem(_pointer(path), f"a name {problem}") for problem in wrong]
            members = value.items() if isinstance(value, dict) else enumerate(value)
            waiting.extend((member, (*path, step)) for step, member in members)
        elif problem := _value_problem(value):
            problems.append(FieldProblem(_pointer(path), problem))
    if problems:
        raise UnusableValuesError(sorted(problems, key=lambda found: found.pointer))


def _value_problem(value: str | float | None) -> str | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, int | float) and not -_LARGEST <= value < _LARGEST:
        return "is too large a number"
    return None


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "must not hold a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must not hold a lone surrogate"
    return None


def _pointer(path: Sequence[str | int]) -> str:
    return "".join(f"/{_step(str(step))}" for step in path)


def _step(name: str) -> str:
    shown = "".join(character if character.isprintable() else "?" for character in name[:64])
    return shown.replace("~", "~0").replace("/", "~1")
