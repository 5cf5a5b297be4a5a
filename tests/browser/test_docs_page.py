"""The reference page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server

ROOMS = {"Chamber": "/", "Ask": "/ask", "Archive": "/archive", "Record": "/record", "Operations": "/operations"}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_reference_lists_every_call_to_everybody(
    server: RunningServer, open_page: OpenPage, barriers: Callable[[Page], list[str]], width: int, dark: bool
) -> None:
    page = open_page(server, "/docs", width=width, dark=dark)
    page.get_by_text("/v1/deliberations/{deliberation_id}/outputs").first.wait_for()
    for name, path in ROOMS.items():
        expect(page.get_by_role("navigation", name="Rooms").get_by_role("link", name=name)).to_have_attribute(
            "href", path
        )
    assert not scrolls_sideways(page)
    assert barriers(page) == []


def test_from_the_reference_the_way_leads_back_with_a_key_and_without_one(open_page: OpenPage) -> None:
    with running_server(keys="bob:operator:bob-secret-1") as server:
        page = open_page(server, "/docs")
        page.get_by_role("link", name="Sign in").click()
        page.get_by_label("API key").fill("bob-secret-1")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/docs")
        page.get_by_text("/v1/deliberations/{deliberation_id}/outputs").first.wait_for()
        expect(page.locator(".who")).to_contain_text("bob")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
