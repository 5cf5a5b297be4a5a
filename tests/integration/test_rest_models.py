"""Holds the door to refusing models that nobody can ask, before anything is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from domain.models.money import Price
from tests.conclave_fixture import RunningServer, running_server
from tests.model_desk_double import PricedDesk

_PRICES = {"p/known": Price(1, 1), "p/unpriced": None, None: Price(1, 1)}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    desk = PricedDesk(_PRICES, routes={"mixed": ["p/known", "p/unpriced"]}, prompt_tokens=10)
    with running_server(desk=desk) as running:
        yield running


def body(*models: str | None, **more: Any) -> dict[str, Any]:
    members = [{"id": f"juror-{n}", "persona": "p", "model": model} for n, model in enumerate(models)]
    return {"question": "Why?", "agents": {"members": members}, **more}


def test_each_member_with_an_unknown_model_is_named_and_its_model_is_not_repeated(server: RunningServer) -> None:
    answer = server.post(body("p/known", "p/s3cret", None, "s3cret"))
    assert (answer.status, answer.problem) == (422, "invalid-specification")
    pointers = [error["pointer"] for error in answer.document["errors"]]
    assert pointers == ["/agents/members/1/model", "/agents/members/3/model"]
    assert b"s3cret" not in answer.body


def test_known_models_routes_and_none_are_taken(server: RunningServer) -> None:
    assert server.post(body("p/known", "mixed", "p/unpriced", None)).status == 202


@pytest.mark.parametrize("model", ["p/unpriced", "mixed"])
def test_a_limit_of_money_wants_a_price_of_every_model_of_a_route(server: RunningServer, model: str) -> None:
    answer = server.post(body("p/known", model, limits={"max_cost_usd": 1.0}))
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == ["/agents/members/1/model"]
    assert server.post(body("p/known", limits={"max_cost_usd": 1.0})).status == 202


def test_a_refused_model_leaves_no_idempotency_key_behind(server: RunningServer) -> None:
    headers = {"Idempotency-Key": "models-1"}
    assert server.post(body("nobody/knows"), headers=headers).status == 422
    assert server.post(body("p/known"), headers=headers).status == 202
