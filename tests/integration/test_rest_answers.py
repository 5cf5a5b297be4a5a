"""What every answer of the REST door has in common, pages included: its headers, its methods, its addresses."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conclave_fixture import RunningServer

QUESTION: dict[str, Any] = {"question": "Shall we?", "agents": {"count": 2}}


@pytest.fixture(scope="module")
def ended(server: RunningServer) -> dict[str, Any]:
    document: dict[str, Any] = server.post(QUESTION, query="?wait=30").document
    return document


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/deliberations", "GET, HEAD, POST"),
        ("PUT", "/v1/deliberations/x", "GET, HEAD"),
        ("GET", "/v1/deliberations/x/cancel", "POST"),
        ("HEAD", "/v1/deliberations/x/cancel", "POST"),
        ("OPTIONS", "/v1/deliberations", "GET, HEAD, POST"),
        ("TRACE", "/healthz", "GET, HEAD"),
        ("BREW", "/v1/pool", "GET, HEAD"),
    ],
)
def test_another_method_is_told_which_there_are(server: RunningServer, method: str, path: str, allowed: str) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert answer.problem == "method-not-allowed"


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/", "/v1/pool/", "//v1/pool", "/v1/deliberations/", "/static/../x"]
)
def test_another_address_is_not_found(server: RunningServer, path: str) -> None:
    assert server.ask("GET", path).problem == "not-found"


@pytest.mark.parametrize("path", ["/healthz", "/v1/pool", "/v1/rosters/archons", "/", "/openapi.json", "/nothing"])
def test_a_head_is_the_answer_without_its_body(server: RunningServer, path: str) -> None:
    whole, head = server.ask("GET", path), server.ask("HEAD", path)
    assert head.body == b""
    assert head.status == whole.status
    assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.body))


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/v1/pool", "/nothing", "/static/reference.js", "/metrics"])
def test_every_answer_is_guarded(server: RunningServer, path: str) -> None:
    headers = server.ask("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    # With none at all a browser would send no origin along with the forms of the room.
    assert headers["referrer-policy"] == ("same-origin" if path in {"/", "/docs"} else "no-referrer")
    assert "server" not in headers
    assert "access-control-allow-origin" not in headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]


def test_answers_with_data_are_stored_nowhere(server: RunningServer, ended: dict[str, Any]) -> None:
    for path in ("/v1/deliberations", f"/v1/deliberations/{ended['id']}", "/healthz"):
        assert server.ask("GET", path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_take_everything_from_here_and_hold_nothing_inline(server: RunningServer, path: str) -> None:
    answer = server.ask("GET", path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    assert "://" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in " ".join(tag for tag in page.split(">") if "<" in tag).replace(" only", "").split("<body", 1)[0]
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == page.count("<script")
    assert all(' src="/static/' in attributes and not content for attributes, content in scripts)


def test_the_description_is_served(server: RunningServer) -> None:
    answer = server.ask("GET", "/openapi.json")
    assert answer.document["openapi"].startswith("3.")
    assert "/v1/deliberations" in answer.document["paths"]
