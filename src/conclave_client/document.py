"""What every document of the server has in common, and how one is read out of JSON."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

__all__ = ["Document", "UnexpectedDocumentError", "named", "read_document"]

_NAME = "name in JSON"
_Document = TypeVar("_Document", bound="Document")
_Reader = Callable[[Any, str], Any]


class UnexpectedDocumentError(ValueError):
    """JSON that is not the document it should be; the message says where, and repeats no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A JSON object. `document` is the whole of it as it came, with the fields that this version does not know."""

    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def named(name: str) -> Any:
    """A required field whose name in JSON is a word of Python's own."""
    return field(metadata={_NAME: name})


def read_document(kind: type[_Document], value: Any) -> _Document:
    """The document of that kind in parsed JSON. Raises `UnexpectedDocumentError`.

    Unknown fields are kept in `document`. A field that is not there reads as its default, or as None where that is allowed.
    """
    readable: Any = kind
    document: _Document = _reader(readable)(value, "")
    return document


def _off(place: str, problem: str) -> UnexpectedDocumentError:
    return UnexpectedDocumentError(f"{place or 'the document'} {problem}")


@cache
def _reader(kind: Any) -> _Reader:
    """Reads one value of that kind, a type as the annotations of the documents are made of."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value, _place: value
    if origin in {types.UnionType, typing.Union}:
        return _one_of(tuple(_reader(each) for each in arguments))
    if origin is tuple:
        return _sequence(_reader(arguments[0]))
    if origin is Mapping:
        return _mapping(_reader(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _object(typing.cast("type[Any]", kind))
    return _plain(kind)


def _plain(kind: type) -> _Reader:
    expected = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}[
        kind
    ]

    def read(value: Any, place: str) -> Any:
        if type(value) is kind:
            return value
        if kind is float and type(value) is int:
            try:
                return float(value)
            except OverflowError:
                pass
        raise _off(place, f"is not {expected}")

    return read


def _one_of(readers: tuple[_Reader, ...]) -> _Reader:
    def read(value: Any, place: str) -> Any:
        problem = _off(place, "is of no kind that can be read")
        for reader in readers:
            try:
                return reader(value, place)
            except UnexpectedDocumentError as error:
                # An object is of one kind at most, and what is wrong inside it says more than that it is not null.
                problem = error if isinstance(value, dict | list) and str(error).startswith(f"{place}/") else problem
        raise problem

    return read


def _sequence(item: _Reader) -> _Reader:
    def read(value: Any, place: str) -> Any:
        if not isinstance(value, list):
            raise _off(place, "is not a list")
        return tuple(item(each, f"{place}/{number}") for number, each in enumerate(value))

    return read


def _mapping(item: _Reader) -> _Reader:
    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _off(place, "is not an object")
        return {name: item(each, f"{place}/*") for name, each in value.items()}

    return read


@dataclass(frozen=True, slots=True)
class _Field:
    attribute: str
    name: str
    reader: _Reader
    has_default: bool
    may_be_none: bool


def _object(kind: type[Any]) -> _Reader:
    hints = typing.get_type_hints(kind)
    fields = [
        _Field(
            each.name,
            each.metadata.get(_NAME, each.name),
            _reader(hints[each.name]),
            each.default is not dataclasses.MISSING,
            type(None) in typing.get_args(hints[each.name]),
        )
        for each in dataclasses.fields(kind)
        if each.name != "document"
    ]

    def read(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            raise _off(place, "is not an object")
        found: dict[str, Any] = {}
        for each in fields:
            if each.name in value:
                found[each.attribute] = each.reader(value[each.name], f"{place}/{each.name}")
            elif each.may_be_none and not each.has_default:
                found[each.attribute] = None
            elif not each.has_default:
                raise _off(f"{place}/{each.name}", "is missing")
        return kind(document=value, **found)

    return read
