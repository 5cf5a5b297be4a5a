"""A server without keys answers callers on its own machine, and no web page that a browser there has open."""

from __future__ import annotations

import pytest
from starlette.types import Scope

from api.rest.callers import foreign_caller


def request(
    headers: dict[str, str] | None = None, *, client: tuple[str, int] | None = ("127.0.0.1", 5), method: str = "POST"
) -> Scope:
    given = {"host": "localhost:8000", **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return {"type": "http", "method": method, "path": "/v1/pool", "headers": raw, "client": client}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:65535", "[::1]"])
def test_a_local_name_is_answered(host: str) -> None:
    assert foreign_caller(request({"host": host})) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org:8000",
        "localhost:8000@example.org",
        "localhost:",
        "localhost:80:80",
        "localhost:٣",
        "0.0.0.0:8000",
        "192.168.1.2",
        "::1",
    ],
)
def test_another_name_is_refused_since_it_may_be_a_page_that_rebinds_its_own(host: str) -> None:
    assert foreign_caller(request({"host": host})) is not None


@pytest.mark.parametrize("client", [("192.168.1.2", 5), ("::ffff:10.0.0.1", 5), ("unix", 0), None])
def test_another_machine_is_refused_whatever_it_calls_itself(client: tuple[str, int] | None) -> None:
    assert foreign_caller(request(client=client)) is not None


@pytest.mark.parametrize("client", [("127.0.0.1", 5), ("127.9.9.9", 5), ("::1", 5), ("::ffff:127.0.0.1", 5)])
def test_this_machine_is_answered(client: tuple[str, int]) -> None:
    assert foreign_caller(request(client=client)) is None


def test_a_page_from_here_is_answered() -> None:
    headers = {"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}
    assert foreign_caller(request(headers)) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://example.org",
        "http://localhost:3000",
        "http://localhost",
        "http://127.0.0.1:8000",
        "localhost:8000",
    ],
)
def test_a_page_from_elsewhere_is_refused(origin: str) -> None:
    assert foreign_caller(request({"origin": origin})) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_request_that_a_page_elsewhere_makes_without_an_origin_is_refused(site: str) -> None:
    headers = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert foreign_caller(request(headers, method="GET")) is not None


def test_a_link_from_elsewhere_may_be_followed() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert foreign_caller(request(headers, method="GET")) is None


def test_a_form_from_elsewhere_may_not_be_sent() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert foreign_caller(request(headers, method="POST")) is not None


def test_a_frame_elsewhere_may_not_show_it() -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}
    assert foreign_caller(request(headers, method="GET")) is not None
