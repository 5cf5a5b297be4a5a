"""The bounds of a request as its schema states them, for whoever writes a client: the domain alone holds them against what is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from domain.models.question import MAX_OPTIONS, MIN_OPTIONS, AnswerKind

__all__ = ["ANSWER_BOUNDS", "above", "between", "entries", "texts_by_name", "up_to"]

# With options where they are what is chosen from, and without them where they are not.
ANSWER_BOUNDS: Mapping[str, Any] = {
    "if": {
        "properties": {"kind": {"enum": [kind.value for kind in AnswerKind if kind.has_options]}},
        "required": ["kind"],
    },
    "then": {"properties": {"options": {"minItems": MIN_OPTIONS, "maxItems": MAX_OPTIONS}}, "required": ["options"]},
    "else": {"properties": {"options": {"maxItems": 0}}},
}


def between(bounds: tuple[float, float]) -> Any:
    """A number from the first to the second."""
    return Field(json_schema_extra={"minimum": bounds[0], "maximum": bounds[1]})


def above(bounds: tuple[float, float]) -> Any:
    """A number that is more than the first and at most the second."""
    return Field(json_schema_extra={"exclusiveMinimum": bounds[0], "maximum": bounds[1]})


def up_to(max_bytes: int, *, least: int = 1) -> Any:
    """A text. Its bound counts bytes of UTF-8, of which a character has one at least."""
    bounds = {"minLength": least, "maxLength": max_bytes}
    return Field(json_schema_extra={word: bound for word, bound in bounds.items() if bound})


def entries(least: int, most: int, *, looked_at: int) -> Any:
    """A list; of one that is longer than `looked_at` the entries are not looked at."""
    return Field(max_length=looked_at, json_schema_extra={"minItems": least, "maxItems": most})


def texts_by_name(most: int, *, max_bytes: int) -> dict[str, Any]:
    """Of an object: how many texts it has, and how long they and their names are."""
    text = {"type": "string", "minLength": 1, "maxLength": max_bytes}
    return {
        "maxProperties": most,
        "propertyNames": {"minLength": 1, "maxLength": max_bytes},
        "additionalProperties": text,
    }
