"""Quotes and usage over a real port: who may ask, what is answered, and that asking spends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from domain.models.money import Price
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_usage_reader import InMemoryUsageReader, SpentCall
from tests.conclave_fixture import RunningServer, running_server
from tests.model_desk_double import PricedDesk

_KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,root:admin:root-secret-1"
_CENT = 10**10
_PRICES = {"p/m": Price.per_million(input_usd=1, output_usd=4), "p/unknown": None, None: Price(0, 0)}


def _spent(deliberation_id: str, key_name: str | None, *, is_certain: bool = True) -> SpentCall:
    return SpentCall(
        deliberation_id,
        position=int(deliberation_id[-1]),
        key_name=key_name,
        model="openai/small",
        day="2026-11-21",
        held_tokens=1_500,
        held_cost=7 * _CENT,
        is_certain=is_certain,
        input_tokens=100,
        output_tokens=20,
        cost=_CENT,
    )


_SPENT = (_spent("d-1", "bob"), _spent("d-2", "ann"), _spent("d-3", None), _spent("d-2", "ann", is_certain=False))


@pytest.fixture(scope="module")
def orchestrator() -> AgentOrchestratorStub:
    return AgentOrchestratorStub()


@pytest.fixture(scope="module")
def server(orchestrator: AgentOrchestratorStub) -> Iterator[RunningServer]:
    reader = InMemoryUsageReader(lambda: _SPENT)
    with running_server(keys=_KEYS, orchestrator=orchestrator, desk=PricedDesk(_PRICES), usage=reader) as running:
        yield running


def _key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1"}


def _asking(*models: str, **limits: float) -> dict[str, Any]:
    members = [{"id": f"archon-{number}", "persona": "Wise.", "model": model} for number, model in enumerate(models)]
    return {"question": "Shall we?", "agents": {"members": members}, "limits": limits}


def _items(server: RunningServer, by: str, name: str) -> list[dict[str, Any]]:
    answer = server.ask("GET", f"/v1/usage?by={by}", headers=_key(name))
    assert answer.status == 200
    items: list[dict[str, Any]] = answer.document["items"]
    return items


@pytest.mark.parametrize("name", ["ann", "bob", "root"])
def test_whoever_may_read_is_quoted_a_price(server: RunningServer, name: str) -> None:
    answer = server.ask("POST", "/v1/quotes", _asking("p/m", "p/m"), headers=_key(name))
    assert answer.status == 200
    assert answer.document == {
        "calls": {"expected": 2, "at_most": 4},
        "tokens": {"expected": 2 * 550, "at_most": 4 * 2_024},
        "cost_usd": {"expected": pytest.approx(2 * 0.001), "at_most": pytest.approx(4 * 0.005096)},
        "notices": [],
    }


def test_asking_for_a_quote_accepts_nothing_and_calls_nobody(
    server: RunningServer, orchestrator: AgentOrchestratorStub
) -> None:
    assert server.ask("POST", "/v1/quotes", _asking("p/m"), headers=_key("bob")).status == 200
    assert server.ask("GET", "/v1/deliberations", headers=_key("root")).document["items"] == []
    assert orchestrator.invocations == 0


def test_a_quote_is_given_while_halted() -> None:
    halt = HaltCheckerStub()
    with running_server(halt=halt, desk=PricedDesk(_PRICES)) as server:
        server.call(halt.set_halted("maintenance"))
        assert server.post(_asking("p/m")).status == 503
        assert server.ask("POST", "/v1/quotes", _asking("p/m")).status == 200


def test_where_a_price_is_not_known_the_cost_is_null_and_a_notice_says_so(server: RunningServer) -> None:
    document = server.ask("POST", "/v1/quotes", _asking("p/unknown"), headers=_key("bob")).document
    assert document["cost_usd"] == {"expected": None, "at_most": None}
    assert "'p/unknown'" in document["notices"][0]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (_asking("p/m", "p/unknown", max_cost_usd=1.0), ["/agents/members/1/model"]),
        (_asking("nobody/knows"), ["/agents/members/0/model"]),
        (_asking("p/m", max_cost_usd=-1.0, max_attempts=0), ["/limits/max_attempts", "/limits/max_cost_usd"]),
        ({"question": ""}, ["/question"]),
        ({}, ["/question"]),
        ({"question": "Shall we?", "agents": {"roster": "nobody"}}, ["/agents/roster"]),
    ],
)
def test_what_would_be_refused_is_not_quoted(server: RunningServer, body: object, pointers: list[str]) -> None:
    answer = server.ask("POST", "/v1/quotes", body, headers=_key("bob"))
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == pointers
    assert b"nobody/knows" not in answer.body


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b'{"question":"' + b"x" * 1_048_576 + b'"}', {"Content-Type": "application/json"}, 413),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_as_in_a_submission(
    server: RunningServer, body: bytes, headers: dict[str, str], status: int
) -> None:
    assert server.ask("POST", "/v1/quotes", body, headers={**_key("bob"), **headers}).status == status


def test_neither_is_told_without_a_key(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/quotes", _asking("p/m")).status == 401
    assert server.ask("GET", "/v1/usage?by=key").status == 401


def test_usage_has_the_fields_of_the_contract(server: RunningServer) -> None:
    assert _items(server, "provider", "root") == [
        {
            "key": "openai",
            "calls": 4,
            "input_tokens": 300,
            "output_tokens": 60,
            "cost_usd": 0.03,
            "uncertain_tokens": 1_500,
            "uncertain_usd": 0.07,
        }
    ]


@pytest.mark.parametrize(
    ("by", "keys"),
    [
        ("deliberation", ["d-3", "d-2", "d-1"]),
        ("key", ["", "ann", "bob"]),
        ("model", ["openai/small"]),
        ("day", ["2026-11-21"]),
    ],
)
def test_admins_see_what_everybody_s_calls_took(server: RunningServer, by: str, keys: list[str]) -> None:
    items = _items(server, by, "root")
    assert [item["key"] for item in items] == keys
    assert sum(item["calls"] for item in items) == 4


@pytest.mark.parametrize(("name", "calls", "own"), [("ann", 2, "d-2"), ("bob", 1, "d-1")])
def test_others_see_what_the_calls_of_their_own_key_took(
    server: RunningServer, name: str, calls: int, own: str
) -> None:
    for by in ("deliberation", "key", "provider", "model", "day"):
        assert sum(item["calls"] for item in _items(server, by, name)) == calls
    assert [item["key"] for item in _items(server, "deliberation", name)] == [own]


@pytest.mark.parametrize("query", ["", "?by=", "?by=agent", "?by=KEY", "?by=key%00", "?by=key&by=day", "?by=%27"])
def test_usage_by_anything_else_is_refused_at_its_field(server: RunningServer, query: str) -> None:
    answer = server.ask("GET", f"/v1/usage{query}", headers=_key("root"))
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == ["/query/by"]
