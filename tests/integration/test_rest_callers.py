"""Who may call: with a key what its role allows, without keys only whoever is on this machine, and no web page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conclave_fixture import Answer, RunningServer, running_server

QUESTION: dict[str, Any] = {"question": "Shall we?", "agents": {"count": 2}}


def problem_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.problem


KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,bea:operator:bea-secret-1,root:admin:root-secret-1"


@pytest.fixture(scope="module")
def keyed() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic Ym9iOmJvYi1zZWNyZXQtMQ=="},
        {"Authorization": "bob-secret-1"},
        {"Authorization": "Bearer bob-secret-1 x"},
        {"Authorization": "Bearer \xff\x80"},
        {"Authorization": "Bearer " + "x" * 10_000},
    ],
)
def test_without_a_known_key_nothing_is_told(keyed: RunningServer, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/pool"), ("POST", "/v1/deliberations"), ("GET", "/v1/deliberations?limit=x")):
        answer = keyed.ask(method, path, headers=headers)
        assert problem_of(answer) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/sign-in"])
def test_what_is_open_needs_no_key(keyed: RunningServer, path: str) -> None:
    assert keyed.ask("GET", path).status == 200


def test_the_scheme_is_read_in_any_case(keyed: RunningServer) -> None:
    assert keyed.ask("GET", "/v1/pool", headers={"Authorization": "bearer bob-secret-1"}).status == 200


def test_an_observer_reads_and_does_nothing_else(keyed: RunningServer) -> None:
    assert keyed.ask("GET", "/v1/rosters", headers=key("ann")).status == 200
    assert problem_of(keyed.post(QUESTION, headers=key("ann"))) == (403, "forbidden")
    assert problem_of(keyed.ask("POST", "/v1/deliberations/x/cancel", headers=key("ann"))) == (403, "forbidden")


def test_a_caller_sees_its_own_deliberations_and_an_admin_everybodys(keyed: RunningServer) -> None:
    deliberation = keyed.post(QUESTION, query="?wait=30", headers=key("bob")).document
    path = f"/v1/deliberations/{deliberation['id']}"
    for part in ("", "/outputs", "/events"):
        assert keyed.ask("GET", path + part, headers=key("bob")).status == 200
        assert keyed.ask("GET", path + part, headers=key("root")).status == 200
        assert problem_of(keyed.ask("GET", path + part, headers=key("bea"))) == (404, "deliberation-not-found")
    assert problem_of(keyed.ask("POST", f"{path}/cancel", headers=key("bea"))) == (404, "deliberation-not-found")
    assert problem_of(keyed.ask("POST", f"{path}/cancel", headers=key("root"))) == (409, "deliberation-ended")


def test_a_list_holds_the_caller_s_own_and_an_admin_s_all(keyed: RunningServer) -> None:
    posted = {name: keyed.post(QUESTION, headers=key(name)).document["id"] for name in ("bob", "bea", "root")}
    listed = {
        name: {
            item["id"] for item in keyed.ask("GET", "/v1/deliberations?limit=200", headers=key(name)).document["items"]
        }
        for name in ("ann", "bob", "bea", "root")
    }
    assert posted["bob"] in listed["bob"]
    assert posted["bea"] not in listed["bob"]
    assert listed["ann"] == set()
    assert set(posted.values()) <= listed["root"]


def test_with_keys_the_name_of_the_host_does_not_matter(keyed: RunningServer) -> None:
    headers = {**key("bob"), "Host": "conclave.example.org", "Origin": "https://example.org"}
    assert keyed.ask("GET", "/v1/pool", headers=headers).status == 200


@pytest.mark.parametrize("host", ["a/b?c#d", "[", "x:y:z", "%00", "user:secret@host", "\xff", ""])
@pytest.mark.parametrize("path", ["/docs", "/v1/pool", "/nothing", "/metrics"])
def test_no_name_of_a_host_makes_it_fail(keyed: RunningServer, host: str, path: str) -> None:
    assert keyed.ask("GET", path, headers={**key("bob"), "Host": host}).status < 500


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "conclave.example.org"},
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/pool", "/", "/metrics", "/openapi.json", "/nothing"])
def test_without_keys_a_web_page_cannot_drive_it(server: RunningServer, headers: dict[str, str], path: str) -> None:
    assert problem_of(server.ask("GET", path, headers=headers)) == (403, "foreign-caller")


def test_without_keys_a_web_page_cannot_post_to_it(server: RunningServer) -> None:
    before = server.ask("GET", "/v1/deliberations").document
    answer = server.post(QUESTION, headers={"Origin": "https://example.org"})
    assert problem_of(answer) == (403, "foreign-caller")
    assert server.ask("GET", "/v1/deliberations").document == before
