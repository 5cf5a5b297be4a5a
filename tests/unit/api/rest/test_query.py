"""How a route reads its query: each parameter once, unless it is declared as a list."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Query

from api.rest.problems import answer_problems
from api.rest.query import StrictRoute


async def depth(depth: Annotated[int, Query(ge=1)] = 1) -> int:
    return depth


async def found(
    below: Annotated[int, Depends(depth)],
    tag: Annotated[list[int] | None, Query()] = None,
    share: Annotated[float | None, Query(alias="part")] = None,
) -> str:
    return f"{below} {tag} {share}"


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI(openapi_url=None)
    made.router.route_class = StrictRoute
    answer_problems(made)
    made.add_api_route("/v1/found", found)
    made.add_api_route("/found", found)
    return made


async def asked(app: FastAPI, path: str, query: str) -> tuple[int, Any]:
    """The status, and what the body says."""
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "headers": []}
    answer: dict[str, Any] = {}

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.update(message)

    await app(scope, receive, send)
    return answer["status"], json.loads(answer["body"])


async def test_a_list_is_given_item_by_item(app: FastAPI) -> None:
    assert await asked(app, "/v1/found", "tag=1&tag=2&part=0.5&depth=3") == (200, "3 [1, 2] 0.5")


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("part=1&part=2", ["/query/part"]),
        ("depth=1&depth=2", ["/query/depth"]),
        ("share=1", ["/query/share"]),
        ("depth=0_2&tag=x", ["/query/depth", "/query/tag"]),
        ("depth=0&part=1e0", ["/query/part", "/query/depth"]),
    ],
)
async def test_what_is_wrong_is_named_once_and_all_together(app: FastAPI, query: str, pointers: list[str]) -> None:
    status, refusal = await asked(app, "/v1/found", query)
    assert status == 422
    assert [each["pointer"] for each in refusal["errors"]] == pointers


async def test_a_route_that_is_not_of_the_contract_reads_its_query_as_ever(app: FastAPI) -> None:
    assert await asked(app, "/found", "part=1&part=2&depth=1_0&more=1") == (200, "10 None 2.0")
