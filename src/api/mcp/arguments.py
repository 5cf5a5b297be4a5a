"""What is wrong with the arguments of a call, in words: where, and what would be right, never what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from api.request_shape import is_field_name
from domain.errors.deliberation import FieldProblem

__all__ = ["problems_in"]

_OF_NUMBERS = ("int_", "float_", "finite_", "greater_than", "less_than")


def problems_in(error: ValidationError, taken: type[BaseModel]) -> list[FieldProblem]:
    """Where (RFC 6901 JSON pointers) and what, each only once; `taken` are the arguments that there are.

    An unknown name is repeated where it is one that an argument could have, and nothing else of what was sent is.
    """
    there_are = f"; there is {', '.join(taken.model_fields)}"
    found: dict[FieldProblem, None] = {}
    for each in error.errors(include_url=False, include_input=False):
        if each["type"] == "extra_forbidden":
            found[_unknown(str(each["loc"][-1]), there_are)] = None
            # What there is needs to be said but once.
            there_are = ""
        else:
            found[_problem(each, taken)] = None
    return list(found)


def _unknown(name: str, there_are: str) -> FieldProblem:
    if is_field_name(name):
        return FieldProblem(f"/{name}", f"is not an argument of this tool{there_are}")
    return FieldProblem("", f"has an unknown argument{there_are}")


def _problem(found: ErrorDetails, taken: type[BaseModel]) -> FieldProblem:
    name, *deeper = found["loc"]
    pointer = "".join(f"/{step}" for step in (name, *deeper))
    return FieldProblem(pointer, _words(found, taken.model_fields.get(str(name))))


def _words(found: ErrorDetails, field: FieldInfo | None) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if kind.startswith(_OF_NUMBERS) and field is not None:
        return _range(field)
    said = {
        "missing": "is missing",
        "string_too_short": "must not be empty",
        "string_too_long": f"must have at most {_count(context)} characters",
        "too_long": f"must have at most {_count(context)} items",
        "string_type": "must be a text",
        "list_type": "must be a list of texts",
        "literal_error": f"must be {context.get('expected')}",
    }
    return said.get(kind, found["msg"])


def _range(field: FieldInfo) -> str:
    bounds: dict[str, Any] = {}
    for each in field.metadata:
        bounds |= {name: getattr(each, name) for name in ("ge", "gt", "le") if hasattr(each, name)}
    if "ge" in bounds and "le" in bounds:
        return f"must be {bounds['ge']:,} to {bounds['le']:,}"
    if "ge" in bounds:
        return f"must be a number, at least {bounds['ge']:,}"
    return f"must be a number above {bounds['gt']:,}" if "gt" in bounds else "must be a number"


def _count(context: Mapping[str, Any]) -> str:
    return f"{context.get('max_length', 0):,}"
