"""What is wrong with a question while it is written: said beside the field that it is about, in words that name it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_ask import REFUSED, ask, choose, put, write
from tests.browser.watched_page import OpenPage
from tests.conclave_fixture import RunningServer, running_server

QUESTION = "Should the city centre be closed to private cars?"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def test_too_many_agents_are_told_beside_their_field_while_it_is_written(
    server: RunningServer, open_page: OpenPage, barriers: Callable[[Page], list[str]]
) -> None:
    page = open_page(server, "/ask")
    write(page, QUESTION)
    count = page.get_by_label("How many of them")
    count.fill("73")
    expect(page.locator("#quote-says")).to_have_text("No quote yet. How many of them: Must be at most 72.")
    expect(count).to_have_attribute("aria-invalid", "true")
    expect(count).to_have_accessible_description("Must be at most 72.")
    expect(page.locator('[data-error="/agents/count"]')).to_be_visible()
    assert barriers(page) == []
    ask(page)
    expect(page.locator("#summary").get_by_role("link", name="How many of them")).to_be_visible()
    expect(count).to_have_value("73")
    expect(page.get_by_label("What is to be decided?")).to_have_value(QUESTION)
    assert put(server, QUESTION) == []
    count.fill("5")
    expect(count).not_to_have_attribute("aria-invalid", "true")
    expect(page.locator('[data-error="/agents/count"]')).to_be_hidden()
    expect(page.locator('[data-amount="calls.expected"]')).to_have_text("5")


def test_what_the_server_refuses_to_quote_is_told_beside_its_field(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/ask", allowed=REFUSED)
    write(page, QUESTION)
    choose(page, "choice", "yes", "no", "YES")
    third = page.get_by_label("Option 3", exact=True)
    expect(third).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#quote-says")).to_contain_text("No quote. Option 3: ")
    expect(third).to_have_value("YES")
