"""The reference page in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server


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
    assert not scrolls_sideways(page)
    assert barriers(page) == []
