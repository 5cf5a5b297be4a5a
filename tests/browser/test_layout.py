"""Where things stand on the pages: columns that line up, air between neighbours, and nothing that jumps while a page is read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.watched_page import OpenPage
from tests.conclave_fixture import RunningServer, running_server

WIDTHS = (390, 1440)
# Where each line of the descriptions begins, and where the links beside them end.
_COLUMNS = """() => [...document.querySelectorAll(".links li")].map((item) => {
  const range = document.createRange();
  range.selectNodeContents(item.querySelector("span"));
  return [item.querySelector("a").getBoundingClientRect().right, ...[...range.getClientRects()].map((line) => Math.round(line.left))];
})"""
_SHIFTS = """() => new Promise((resolve) => new PerformanceObserver((list) => resolve(
  list.getEntries().reduce((sum, each) => sum + each.value, 0))).observe({ type: "layout-shift", buffered: true })
  || setTimeout(() => resolve(0), 500))"""


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        running.post({"question": "Shall we?", "agents": {"count": 3}}, query="?wait=30")
        yield running


def box(page: Page, selector: str) -> tuple[float, float]:
    """Top and bottom of that element."""
    found = page.locator(selector).bounding_box()
    assert found is not None
    return found["y"], found["y"] + found["height"]


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_said_of_a_link_has_a_column_of_its_own(server: RunningServer, open_page: OpenPage, width: int) -> None:
    page = open_page(server, "/", width=width)
    expect(page.locator(".links li")).to_have_count(5)
    items = page.evaluate(_COLUMNS)
    assert len({line for _, *lines in items for line in lines}) == 1, items
    assert all(line > right for right, *lines in items for line in lines), items


def test_both_ways_to_check_a_bundle_stand_at_one_height(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/record")
    assert box(page, "#bundle-file") == pytest.approx(box(page, "#bundle-id"), abs=1)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_roster_is_named_in_the_choice_and_described_whole_below_it(
    server: RunningServer, open_page: OpenPage, width: int
) -> None:
    page = open_page(server, "/ask", width=width)
    expect(page.get_by_label("Roster").locator("option").first).to_have_text("archons · 72 agents")
    expect(page.locator("#roster-says")).to_contain_text("72 professions")
    expect(page.get_by_label("Roster")).to_have_attribute("aria-describedby", "roster-says")


@pytest.mark.parametrize("width", WIDTHS)
def test_links_keep_away_from_the_card_below(server: RunningServer, open_page: OpenPage, width: int) -> None:
    own = server.ask("GET", "/v1/deliberations").document["items"][0]["id"]
    page = open_page(server, f"/archive/compare?a={own}", width=width)
    assert box(page, "form.card[action='/archive/compare']")[0] - box(page, "#rules > .hit-links")[1] >= 16


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_while_the_reference_is_read(server: RunningServer, open_page: OpenPage, width: int) -> None:
    page = open_page(server, "/docs", width=width)
    expect(page.locator("#reference details").first).to_be_visible()
    assert page.evaluate(_SHIFTS) < 0.01
