"""Where a sign-in may lead, and how often somebody may be wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.responses import Response

from api.dashboard.problem_pages import is_page
from api.dashboard.rendering import give_cookie
from api.dashboard.signing_in import Attempts, own_path
from api.rest.sessions import Sessions
from application.services.api_keys import ApiKeyring


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ask",
        "/deliberations/1f-a_2",
        "/archive?search=a%20b&status=queued",
        "/record/entries/7",
        "/a//b",
        "/?a=//b",
    ],
)
def test_a_path_of_this_server_is_gone_to(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "ask",
        "//example.org",
        "//example.org/ask",
        "///example.org",
        "/\\example.org",
        "/a\\b",
        "\\\\example.org",
        "https://example.org/",
        "HTTPS:example.org",
        "javascript:alert(1)",
        "data:text/html,x",
        " /ask",
        "/ ask",
        "/\t/example.org",
        "/\n/example.org",
        "\t//example.org",
        "/\x00ask",
        "/ask\r\nSet-Cookie: a=b",
        "/ask\x7f",
        "/é",
        "/\u2028",
        "/\ud800",
        "/sign-in",
        "/sign-in?next=/ask",
        "/sign-out",
        "/" + "a" * 2048,
    ],
)
def test_anything_else_leads_to_the_chamber(path: str) -> None:
    assert own_path(path) == "/"


class Hands:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_the_tenth_wrong_key_makes_an_address_wait_until_the_first_is_a_minute_old() -> None:
    hands = Hands()
    attempts = Attempts(now=hands)
    for _ in range(10):
        assert attempts.wait_s("192.0.2.1") == 0
        attempts.note_wrong("192.0.2.1")
        hands.at += 1
    assert attempts.wait_s("192.0.2.1") == 50
    assert attempts.wait_s("192.0.2.2") == 0
    hands.at += 50
    assert attempts.wait_s("192.0.2.1") == 0


def test_addresses_of_one_ipv6_network_count_as_one() -> None:
    attempts = Attempts(most=2, now=Hands())
    attempts.note_wrong("2001:db8::1")
    attempts.note_wrong("2001:db8::ffff:2")
    assert attempts.wait_s("2001:db8::3") > 0
    assert attempts.wait_s("2001:db8:0:1::3") == 0


def test_an_ipv4_address_is_the_same_in_either_writing() -> None:
    attempts = Attempts(most=1, now=Hands())
    attempts.note_wrong("::ffff:192.0.2.1")
    assert attempts.wait_s("192.0.2.1") > 0
    assert attempts.wait_s("::ffff:192.0.2.2") == 0


def test_no_more_addresses_are_remembered_than_may_be() -> None:
    attempts = Attempts(most=1, addresses=3, now=Hands())
    for number in range(5):
        attempts.note_wrong(f"192.0.2.{number}")
    assert [attempts.wait_s(f"192.0.2.{number}") > 0 for number in range(5)] == [False, False, True, True, True]


def test_who_has_no_address_is_counted_too() -> None:
    attempts = Attempts(most=1, now=Hands())
    attempts.note_wrong("")
    assert attempts.wait_s("") > 0


def test_programs_get_problems_and_people_pages() -> None:
    assert not any(
        map(is_page, ["/v1", "/v1/pool", "/static/page.js", "/healthz", "/readyz", "/metrics", "/openapi.json"])
    )
    assert all(map(is_page, ["/", "/ask", "/deliberations/1", "/archive", "/nothing", "/v10"]))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_cookie_that_came_over_https_goes_over_https_alone(scheme: str, tmp_path: Path) -> None:
    app = SimpleNamespace(state=SimpleNamespace(sessions=Sessions(tmp_path, ApiKeyring())))
    scope = {"type": "http", "method": "GET", "scheme": scheme, "server": ("localhost", 1), "path": "/", "headers": []}
    response = Response()
    give_cookie(Request({**scope, "app": app}), response, "value")
    assert ("Secure" in response.headers["set-cookie"].split("; ")) is (scheme == "https")
