"""What is wrong with the shape of a request, and what is left of it to be looked at for its values."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from pydantic import ValidationError

from domain.errors.deliberation import FieldProblem, steps_of

__all__ = ["Misshapen", "is_field_name", "problems_of", "unknown_fields"]

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_MAX_SHOWN = 64
_UNKNOWN = "extra_forbidden"
_NOT_A_FIELD = "is not a field of this request"
# The fields that a request or one of its members cannot do without; all of them are texts.
_NEEDED = frozenset({"question", "id", "persona"})
# Of a field that cannot be read: the parts of which nothing can be said as long as nobody knows it.
_RESTS_ON: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("answer",): ("rule",),
    ("answer", "kind"): ("answer", "rule"),
    ("protocol",): ("rule",),
    ("protocol", "kind"): ("protocol", "rule"),
    ("rule", "kind"): ("rule",),
}


def is_field_name(name: str) -> bool:
    """Whether a field could have that name: any other one is not repeated to whoever sent it."""
    return _NAME.fullmatch(name) is not None


def unknown_fields(document: Iterable[str], known: Container[str]) -> list[FieldProblem]:
    """Those of an object that are not `known`, each pointed at as far as its name can be told."""
    return [
        FieldProblem(f"/{name}" if is_field_name(name) else "", _NOT_A_FIELD) for name in document if name not in known
    ]


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Where and why, as JSON pointers (RFC 6901), without the refused values.

    A name that no field could have is not repeated either: the pointer then ends where it stands.
    """
    return _problems(_details(error))


class Misshapen:
    """A request some of whose fields cannot be read: those are left out or stood in for, so that the others can be judged as well."""

    def __init__(self, body: Mapping[str, Any], error: ValidationError) -> None:
        self._details = _details(error)
        self._places = {tuple(map(str, found["loc"])) for found in self._details}
        self.rest = copy.deepcopy(dict(body))
        for found in self._details:
            _mend(self.rest, found["loc"], found["type"])

    def problems(self, values: Iterable[FieldProblem]) -> list[FieldProblem]:
        """Those of the shape, then those of `values`, found in the rest, that are no consequence of them."""
        unknowable = {(part,) for place in self._places for part in _RESTS_ON.get(place, ())}
        hidden = self._places | unknowable
        return [
            *_problems(self._details),
            *(
                problem
                for problem in values
                if hidden.isdisjoint(itertools.accumulate((step,) for step in steps_of(problem.pointer)))
            ),
        ]


def _details(error: ValidationError) -> Sequence[Any]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _problems(details: Iterable[Any]) -> list[FieldProblem]:
    problems = []
    for found in details:
        steps = [str(step) for step in found["loc"]]
        unknown = found["type"] == _UNKNOWN
        shown = list(itertools.takewhile(is_field_name if unknown else _is_short, steps))
        message = _NOT_A_FIELD if unknown else found["msg"]
        if len(shown) < len(steps):
            message = "has an unknown field" if unknown else f"has a field whose value {message}"
        problems.append(FieldProblem.at(shown, message))
    return problems


def _is_short(step: str) -> bool:
    return step.isprintable() and len(step) <= _MAX_SHOWN


def _mend(rest: Any, place: Sequence[str | int], kind: str) -> None:
    """Put something harmless into the place of what cannot be read: nothing, where nothing has to be there."""
    *path, last = place
    part = rest
    for step in path:
        part = part[step]
    if isinstance(part, list):
        # A place in a list is never given up, or all after it would be pointed at wrongly.
        part[int(last)] = {"id": _text(), "persona": _text()} if path[-1] == "members" else _text()
    elif kind != _UNKNOWN and (last in _NEEDED or path == ["metadata"]):
        part[last] = _text()
    else:
        part.pop(last, None)


def _text() -> str:
    """A text that no other one of the request equals or looks like."""
    return str(uuid4())
