"""Reads the query of each call under `/v1` as strictly as a body: nothing unknown, nothing twice, no bytes that are no text."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl

from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from api.request_shape import is_field_name
from api.rest.problems import RequestRefusedError
from domain.errors.deliberation import InvalidSpecificationError

__all__ = ["ABSENT_WHEN_EMPTY", "StrictRoute", "held_to"]

_STRICT = "/v1/"
_WHOLE = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_LONE = re.compile("[\ud800-\udfff]")


def _absent_when_empty(value: Any) -> Any:
    """A parameter that a form left empty is one that was not given."""
    return None if value == "" else value


ABSENT_WHEN_EMPTY = BeforeValidator(_absent_when_empty)


class StrictRoute(APIRoute):
    """A route that, under `/v1`, takes no query but its own parameters, each once unless it is a list, and numbers as plain decimals.

    Whatever is wrong is named together with what the framework finds wrong, after whoever may not ask at all was turned away.
    Other routes read their queries as the framework does: pages, which links from anywhere lead to.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers a request."""
        answer = super().get_route_handler()
        if not self.path.startswith(_STRICT):
            return answer
        dependant = self.dependant
        kinds = {name: frozenset(_kinds(annotation)) for name, annotation in _parameters(dependant)}

        async def answer_strictly(request: Request) -> Response:
            wrong = _problems(request.scope.get("query_string", b""), kinds)
            if not wrong:
                return await answer(request)
            others = await _framework_problems(request, dependant)
            raise RequestValidationError(
                [
                    *({"loc": place, "msg": message} for place, message in wrong.items()),
                    *(found for found in others if tuple(found["loc"][:2]) not in wrong),
                ]
            )

        return answer_strictly


def held_to(check: Callable[[str], object]) -> AfterValidator:
    """Has a parameter refused, beside all others that are wrong, where `check` raises `InvalidSpecificationError` for its text."""

    def checked(text: str) -> str:
        try:
            check(text)
        except InvalidSpecificationError as error:
            raise PydanticCustomError("unusable", "{problem}", {"problem": error.problems[0].message}) from None
        return text

    return AfterValidator(checked)


def _problems(query: bytes, kinds: Mapping[str, frozenset[Any]]) -> dict[tuple[str, ...], str]:
    """What is wrong, by the place of the parameter."""
    # Bytes that are no UTF-8 become lone surrogates here; the framework would put replacement characters in their place.
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="surrogateescape")
    wrong: dict[tuple[str, ...], str] = {}
    seen: set[str] = set()
    for name, value in pairs:
        # A name that no parameter could have is not repeated.
        place = ("query", name) if is_field_name(name) else ("query",)
        if name not in kinds:
            problem: str | None = "is not a parameter of this call" if len(place) > 1 else "has an unknown parameter"
        elif name in seen and list not in kinds[name]:
            problem = "is given more than once"
        else:
            problem = _value_problem(value, kinds[name])
        seen.add(name)
        if problem is not None:
            wrong.setdefault(place, problem)
    return wrong


def _value_problem(value: str, kinds: frozenset[Any]) -> str | None:
    if "\x00" in value:
        return "must not hold a NUL character"
    if _LONE.search(value):
        return "must be text in UTF-8"
    # Empty is the same as not given.
    if value and int in kinds and not _WHOLE.fullmatch(value):
        return "must be a whole number in plain digits"
    if value and float in kinds and not _DECIMAL.fullmatch(value):
        return "must be a number in plain digits"
    return None


def _parameters(dependant: Dependant) -> Iterator[tuple[str, Any]]:
    """The query parameters of a call and of all that it depends on, by the names that they are sent under."""
    yield from ((field.alias, field.field_info.annotation) for field in dependant.query_params)
    for each in dependant.dependencies:
        yield from _parameters(each)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of, without what is said about them and without the items of lists."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for each in get_args(annotation):
            yield from _kinds(each)
    else:
        yield origin or annotation


async def _framework_problems(request: Request, dependant: Dependant) -> list[Any]:
    """What the framework finds wrong, as it says it. Raises `RequestRefusedError` where the request is refused for another reason."""
    try:
        solved = await solve_dependencies(
            request=request,
            dependant=dependant,
            async_exit_stack=request.scope["fastapi_inner_astack"],
            embed_body_fields=False,
        )
    except RequestRefusedError as refused:
        if not refused.errors:
            raise
        return [{"loc": tuple(each.pointer.split("/")[1:]), "msg": each.message} for each in refused.errors]
    return solved.errors
