"""Hostile texts in a real browser: every page shows them as text, and none of them runs, opens, leads away or widens anything."""

# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Dialog, Page, expect

from application.pages.visible_text import visible
from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.hostile_chamber import HostileChamber, batches, hostile_chamber
from tests.hostile_texts import hostile_texts, texts_by_category

TEXTS = hostile_texts()
# Few deliberations carry all: each of their texts is several lines.
LINES = 5
JOINED = ["\n".join(TEXTS[start : start + LINES]) for start in range(0, len(TEXTS), LINES)]
FOREIGN = """() => [...document.querySelectorAll('#content *, dialog *')].filter(node =>
  ['SCRIPT', 'IMG', 'IFRAME', 'OBJECT', 'EMBED', 'VIDEO', 'AUDIO', 'STYLE', 'LINK', 'BASE', 'META', 'MARQUEE', 'MATH', 'BDO'].includes(node.nodeName.toUpperCase())
  || [...node.attributes].some(each => each.name.startsWith('on') || each.name === 'srcdoc')
  || /^\\s*(javascript|data|vbscript):/i.test(node.getAttribute('href') ?? '')).map(node => node.outerHTML.slice(0, 200))"""
UNSEEN = """() => [...new Set([...document.querySelector('main').innerText])].filter(each => /[\\p{C}\\p{Zl}\\p{Zp}]/u.test(each) && !'\\n\\t\\u200c\\u200d'.includes(each))"""


@pytest.fixture(scope="module")
def chamber() -> Iterator[HostileChamber]:
    """A handful of deliberations that hold every text."""
    with hostile_chamber() as found:
        for part in batches(JOINED, 44):
            found.choose(part, shown=60)
        yield found


def assert_harmless(page: Page) -> None:
    """No script of a text ran, no element is one of theirs, and nothing unseen stands on the page."""
    assert page.evaluate("window.__hit") is None
    assert page.evaluate(FOREIGN) == []
    assert page.evaluate(UNSEEN) == []


def watch_dialogs(page: Page) -> list[str]:
    opened: list[str] = []

    def note(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", note)
    return opened


def shown_lines(texts: str) -> list[str]:
    return [line for text in texts.split("\n") if (line := visible(text))]


@pytest.mark.parametrize("width", [390, 1440])
def test_the_chamber_shows_every_text_as_it_is_written(
    chamber: HostileChamber, open_page: OpenPage, width: int
) -> None:
    page = open_page(chamber.server, "/", width=width)
    opened = watch_dialogs(page)
    for each in chamber.asked:
        page.goto(f"http://127.0.0.1:{chamber.server.port}/deliberations/{each.id}")
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        written = page.locator(".whole-question bdi").all_text_contents()
        wanted = [line for text in each.texts for line in shown_lines(text)]
        assert written == wanted
        assert_harmless(page)
        assert not scrolls_sideways(page)
    assert opened == []


def test_a_live_chamber_shows_hostile_texts_as_text_as_they_come(chamber: HostileChamber, open_page: OpenPage) -> None:
    page = open_page(chamber.server, "/", width=390)
    opened = watch_dialogs(page)
    texts = TEXTS[::23][:44]
    chamber.server.loop.call_soon_threadsafe(chamber.mouth.go_on.clear)
    asked = chamber.choose(texts, wait=False)
    expect(page.locator(f'#chamber[data-deliberation="{asked.id}"] .seat.is-asked').first).to_be_visible()
    assert_harmless(page)
    page.locator('[data-seat="3"]').click()
    expect(page.locator("#seat-panel")).to_contain_text("Nothing of this agent")
    chamber.server.loop.call_soon_threadsafe(chamber.mouth.go_on.set)
    expect(page.locator("#seat-panel")).to_contain_text(visible(texts[3]), use_inner_text=False)
    expect(page.locator("#decision")).to_be_visible()
    expect(page.locator('[data-bind="name-5"]')).to_contain_text(visible(texts[5])[:60])
    assert_harmless(page)
    assert not scrolls_sideways(page)
    assert opened == []


def test_the_panel_of_a_seat_shows_persona_reason_and_failure_as_text(
    chamber: HostileChamber, open_page: OpenPage
) -> None:
    page = open_page(chamber.server, "/", width=390)
    opened = watch_dialogs(page)
    for number, each in enumerate(chamber.asked[:5]):
        page.goto(f"http://127.0.0.1:{chamber.server.port}/deliberations/{each.id}")
        for seat in (number, number + 17, 44 + number):
            page.locator(f'[data-seat="{seat}"]').dispatch_event("click")
            panel = page.locator("#seat-panel")
            expect(panel.locator("#seat-title")).to_have_text(f"voice-{seat}")
            said = panel.locator("bdi").all_text_contents()
            assert set(shown_lines(each.texts[seat % len(each.texts)])) <= set(said)
            assert_harmless(page)
            assert not scrolls_sideways(page)
    assert opened == []


def test_the_form_takes_hostile_texts_and_its_quote_stands_beside_them(
    chamber: HostileChamber, open_page: OpenPage
) -> None:
    page = open_page(chamber.server, "/ask", width=390)
    opened = watch_dialogs(page)
    written = [texts[0] for texts in texts_by_category().values()]
    page.locator('input[name="/answer/kind"][value="choice"]').check()
    for number, text in enumerate(written, start=1):
        page.get_by_label("What is to be decided?").fill(text)
        page.get_by_label("What should everybody know?").fill(text)
        page.get_by_label(f"Option {number}", exact=True).fill(f"{number} {text[:80]}")
    with page.expect_response(lambda answer: "/v1/quotes" in answer.url or "quote" in answer.url) as quoted:
        page.get_by_label("What is to be decided?").fill("\n".join(written))
    assert quoted.value.status == 200
    assert_harmless(page)
    assert not scrolls_sideways(page)
    page.get_by_role("button", name="Ask the chamber").click()
    assert opened == []


def test_the_archive_looks_for_hostile_texts_and_shows_what_it_finds_as_text(
    chamber: HostileChamber, open_page: OpenPage
) -> None:
    page = open_page(chamber.server, "/archive", width=390)
    opened = watch_dialogs(page)
    for text in ["<script>", "{{ 7*7 }}", "' OR '1'='1", "%_%", "שלום", *TEXTS[7::150]]:
        page.locator("#search").fill(text[:100])
        with page.expect_response(lambda answer: "/archive" in answer.url) as found:
            page.locator("#search").press("Enter")
        assert found.value.status == 200
        assert_harmless(page)
        assert not scrolls_sideways(page)
    assert opened == []


def test_a_comparison_of_two_shows_their_texts_as_text(chamber: HostileChamber, open_page: OpenPage) -> None:
    first, second = chamber.asked[:2]
    page = open_page(chamber.server, f"/archive/compare?a={first.id}&b={second.id}", width=390)
    expect(page.locator("article h2 bdi").first).to_have_text(visible(first.body["question"], limit=400))
    assert_harmless(page)
    assert not scrolls_sideways(page)
    page.goto(f"http://127.0.0.1:{chamber.server.port}/archive/compare?a={first.id}")
    assert_harmless(page)
    assert not scrolls_sideways(page)
