"""A query under `/v1` is taken as strictly as a body: nothing unknown, nothing twice, nothing that only looks like a number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conclave_fixture import RunningServer, running_server

KEYS = "root:admin:secret-of-root,eve:observer:secret-of-eve"
ASKED = {"question": "Shall it be closed?"}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server without keys."""
    with running_server() as running:
        yield running


def refused_at(server: RunningServer, method: str, path: str, **more: Any) -> list[str]:
    answer = server.ask(method, path, **more)
    assert (answer.status, answer.problem) == (422, "invalid-request"), answer.document
    return [each["pointer"] for each in answer.document["errors"]]


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("stauts=failed", ["/query/stauts"]),
        ("Limit=1", ["/query/Limit"]),
        ("limit=1&limit=2", ["/query/limit"]),
        ("limit=&limit=2", ["/query/limit"]),
        ("a%20b=1&%00=2", ["/query"]),
        ("search=%00", ["/query/search"]),
        ("search=a%ed%a0%80", ["/query/search"]),
        ("search=%ff", ["/query/search"]),
        ("origin=%00", ["/query/origin"]),
        ("cursor=%00", ["/query/cursor"]),
        ("limit=1_0", ["/query/limit"]),
        ("limit=%2B1", ["/query/limit"]),
        ("limit=+1", ["/query/limit"]),
        ("limit=1.0", ["/query/limit"]),
        ("limit=%D9%A1", ["/query/limit"]),
        ("limit=-1", ["/query/limit"]),
        ("stauts=failed&limit=1_0&status=x&to=y", ["/query/stauts", "/query/limit", "/query/to", "/query/status"]),
        ("stauts=failed&from=2026-02-02&to=2026-02-01", ["/query/stauts", "/query/to"]),
    ],
)
def test_what_a_list_does_not_take_is_named(server: RunningServer, query: str, pointers: list[str]) -> None:
    assert refused_at(server, "GET", f"/v1/deliberations?{query}") == pointers


@pytest.mark.parametrize("wait", ["1_0", "%2B1", "1e1", "inf", "nan", ".5", "5.", "0x1", "%201"])
def test_seconds_to_wait_are_plain_decimals(server: RunningServer, wait: str) -> None:
    assert refused_at(server, "POST", f"/v1/deliberations?wait={wait}", body=ASKED) == ["/query/wait"]


@pytest.mark.parametrize("query", ["Wait=60", "wait=1&wait=2", "wait=0&dry_run=true"])
def test_a_question_with_a_query_that_is_off_is_not_put(server: RunningServer, query: str) -> None:
    before = server.ask("GET", "/v1/deliberations").document["items"]
    assert len(refused_at(server, "POST", f"/v1/deliberations?{query}", body=ASKED)) == 1
    assert server.ask("GET", "/v1/deliberations").document["items"] == before


def test_a_question_with_a_plain_wait_is_put(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/deliberations?wait=0.25", body=ASKED).status in {200, 202}
    assert server.ask("POST", "/v1/deliberations?wait=", body=ASKED).status == 202


def test_every_call_of_the_contract_refuses_a_parameter_that_it_does_not_have(server: RunningServer) -> None:
    paths = server.ask("GET", "/openapi.json").document["paths"]
    asked = [(method, path) for path, calls in paths.items() if path.startswith("/v1/") for method in calls]
    assert len(asked) > 30
    for method, path in asked:
        # What is wrong with its path or body is not looked at first: no such call reaches what it would do.
        concrete = path.replace("{", "").replace("}", "")
        assert "/query/surprise" in refused_at(server, method.upper(), f"{concrete}?surprise=1"), path


def test_whoever_may_not_ask_is_not_told_what_is_wrong() -> None:
    with running_server(keys=KEYS) as server:
        assert server.ask("GET", "/v1/deliberations?stauts=x").status == 401
        eve = {"Authorization": "Bearer secret-of-eve"}
        assert server.ask("POST", "/v1/halt?stauts=x", headers=eve, body={"reason": "x"}).status == 403
        root = {"Authorization": "Bearer secret-of-root"}
        assert server.ask("POST", "/v1/halt?stauts=x", headers=root, body={"reason": "x"}).status == 422
        assert server.ask("GET", "/v1/halt", headers=root).document["halted"] is False


@pytest.mark.parametrize("path", ["/", "/archive", "/healthz", "/openapi.json", "/metrics"])
def test_pages_and_probes_stay_as_they_were(server: RunningServer, path: str) -> None:
    assert server.ask("GET", f"{path}?utm_source=a&utm_source=b").status == 200
