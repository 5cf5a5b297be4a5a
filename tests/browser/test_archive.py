"""The archive in a browser: found as one types, filtered, compared by keyboard, counted again, taken away."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server
from tests.integration.test_rest_hindsight import CHOICE, RANKING, Panel, Speaker

KEYS = "ada:operator:secret-of-ada,root:admin:secret-of-root"
HOSTILE = "<img src=x onerror=alert(1)> \u202egnp.exe\u202c \x1b[2J </script><script>alert(1)</script>"
SIZES = [(390, False), (390, True), (1440, False), (1440, True)]


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    """A server that nothing is changed on, with what was asked of it."""
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        asked = Panel(server, speaker)
        asked.ask(CHOICE, ["trams", "trams", "buses"], question="Should trams come first?")
        asked.ask(CHOICE, ["trams", "buses", "buses"], question="Ein Café für alle?", metadata={"origin": "petition"})
        asked.ask({"kind": "verdict"}, ["yes", "no"], question="Shall it be debated?", rule={"kind": "plurality"})
        options = [f"{number:02d} {HOSTILE} {'long' * 12}" for number in range(50)]
        hostile = {"kind": "choice", "options": options}
        asked.ask(hostile, [*options[:5], options[0]], question=f"{HOSTILE} {'W' * 32_000}", context=HOSTILE)
        yield asked


@pytest.fixture
def own_panel() -> Iterator[Panel]:
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        yield Panel(server, speaker)


def questions(page: Page) -> list[str]:
    return page.locator("#hits h2").all_inner_texts()


def found(page: Page, words: str) -> None:
    expect(page.locator("#found")).to_have_text(words)


def test_hits_follow_what_is_typed_and_the_address_keeps_it(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive")
    found(page, "4 deliberations, newest first.")
    page.get_by_role("searchbox", name="Search").press_sequentially("CAFE alle", delay=20)
    found(page, "1 deliberation found.")
    assert questions(page) == ["Ein Café für alle?"]
    expect(page).to_have_url(re.compile(r"/archive\?search=CAFE\+alle$"))
    expect(page.locator("#announcements")).to_have_text("1 deliberation found.")
    assert page.get_by_role("searchbox").input_value() == "CAFE alle"
    page.reload()
    found(page, "1 deliberation found.")
    page.get_by_role("searchbox").fill("")
    found(page, "4 deliberations, newest first.")
    expect(page).to_have_url(re.compile(r"/archive$"))


def test_one_request_answers_for_a_burst_of_letters(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/archive?" in request.url else None)
    page.get_by_role("searchbox").press_sequentially("trams", delay=10)
    found(page, "2 deliberations found, newest first.")
    assert len(asked) == 1, asked


def test_a_search_that_cannot_be_made_says_so_and_the_next_one_is_answered(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive", allowed=("422",))
    page.get_by_role("searchbox").fill(" ".join(str(number) for number in range(33)))
    expect(page.locator("#hits")).to_contain_text("The request cannot be accepted")
    page.get_by_role("searchbox").fill("CAFE")
    found(page, "1 deliberation found.")


def test_filters_narrow_what_is_found_and_are_taken_off_again(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive")
    page.locator("summary", has_text="Filters").click()
    page.get_by_label("Outcome").select_option("tied")
    found(page, "1 deliberation found.")
    assert questions(page) == ["Shall it be debated?"]
    page.get_by_label("Kind of answer").select_option("choice")
    expect(page.locator("#hits .empty")).to_contain_text("Nothing was found.")
    expect(page).to_have_url(re.compile(r"outcome=tied&answer=choice$"))
    page.get_by_role("link", name="Take all filters off").click()
    found(page, "4 deliberations, newest first.")


def test_the_page_works_without_a_script(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive", java_script_enabled=False)
    page.get_by_role("searchbox").fill("trams")
    page.get_by_role("button", name="Search").click()
    found(page, "2 deliberations found, newest first.")
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Two deliberations, side by side")


def test_two_are_ticked_and_compared_by_keyboard_alone(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive?search=trams")
    button = page.get_by_role("button", name=re.compile("Compare|See one"))
    expect(button).to_be_disabled()
    page.get_by_role("checkbox").first.focus()
    page.keyboard.press("Space")
    expect(button).to_have_text("See one under several rules")
    # A tick outlasts another search.
    page.get_by_role("searchbox").fill("Should trams come first")
    found(page, "1 deliberation found.")
    page.get_by_role("checkbox").focus()
    page.keyboard.press("Space")
    expect(page.locator("#picked")).to_have_text("2 ticked: ready to be compared.")
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Two deliberations, side by side")
    expect(page.locator(".lead")).to_have_text(
        "They answered different questions. They came to different outcomes. 2 of 3 agents with the same id gave the same answer."
    )
    expect(page.get_by_role("row", name=re.compile("^Decision"))).to_contain_text("differs")
    expect(page.get_by_role("row", name=re.compile("^Protocol"))).to_contain_text("same")


def test_who_comes_back_from_a_comparison_can_compare_again(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive?search=trams")
    for box in page.get_by_role("checkbox").all():
        box.check()
    button = page.get_by_role("button", name="Compare")
    button.click()
    page.wait_for_url(re.compile("/archive/compare"))
    page.go_back()
    expect(page.locator("#hits input[name=pick]:checked")).to_have_count(2)
    expect(page.locator("#picked")).to_have_text("2 ticked: ready to be compared.")
    button.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Two deliberations, side by side")


def test_times_are_the_readers_after_a_search_too(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive", timezone_id="Asia/Kolkata")
    times = page.locator("#hits time")
    before = times.last.inner_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", before)
    page.get_by_role("searchbox").fill("trams")
    found(page, "2 deliberations found, newest first.")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", text) for text in times.all_inner_texts())
    page.get_by_role("searchbox").fill("")
    expect(times.last).to_have_text(before)


def test_a_third_cannot_be_ticked(panel: Panel, open_page: OpenPage) -> None:
    page = open_page(panel.server, "/archive")
    boxes = page.get_by_role("checkbox")
    boxes.nth(0).check()
    boxes.nth(1).check()
    expect(boxes.nth(2)).to_be_disabled()
    boxes.nth(0).uncheck()
    expect(boxes.nth(2)).to_be_enabled()


def test_older_ones_are_a_page_away(own_panel: Panel, open_page: OpenPage) -> None:
    for number in range(23):
        own_panel.ask(CHOICE, ["trams"], question=f"Number {number}?")
    page = open_page(own_panel.server, "/archive?search=number")
    found(page, "23 deliberations found, newest first.")
    first = questions(page)
    page.get_by_role("link", name="Older").click()
    page.wait_for_url(re.compile("cursor="))
    found(page, "23 deliberations found, newest first.")
    assert [*first, *questions(page)] == [f"Number {number}?" for number in reversed(range(23))]
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("#hits h2").first).to_have_text("Number 22?")


def test_ballots_are_counted_again_and_what_came_of_it_is_in_the_record(own_panel: Panel, open_page: OpenPage) -> None:
    orders = [["trams", "buses"]] * 3 + [["buses", "bicycles"]] * 2 + [["bicycles", "buses"]] * 2
    document = own_panel.ask(RANKING, orders, question="Which is best?", rule={"kind": "plurality"})
    page = open_page(own_panel.server, f"/archive/compare?a={document['id']}")
    expect(page.locator("#rules article")).to_have_count(1)
    page.get_by_role("button", name="Count again").click()
    expect(page.locator("#recount-error")).to_have_text("Tick a rule first.")
    page.get_by_role("checkbox", name="borda").check()
    page.get_by_role("checkbox", name="irv").check()
    page.get_by_role("button", name="Count again").click()
    expect(page.locator("#rules article")).to_have_count(3)
    expect(page.get_by_role("button", name="Count again")).to_be_focused()
    borda = page.get_by_role("article", name=re.compile("^borda"))
    expect(borda).to_contain_text("Another outcome than the one that was decided.")
    expect(borda).to_contain_text("Minority report")
    entries = [each["rule"]["kind"] for each in own_panel.entries(document, "recounted")]
    assert entries == ["borda", "irv"]
    expect(page.get_by_role("checkbox", name="borda (stands above)")).to_be_disabled()


def test_a_recount_that_is_refused_says_why_and_can_be_tried_again(own_panel: Panel, open_page: OpenPage) -> None:
    document = own_panel.ask(RANKING, [["trams"], ["buses"]], question="Refused?")
    page = open_page(own_panel.server, f"/archive/compare?a={document['id']}", allowed=("503", "Failed to load"))
    body = json.dumps({"type": "urn:conclave:problem:away", "title": "Away", "status": 503, "detail": "Later."})
    answer: dict[str, Any] = {"status": 503, "content_type": "application/problem+json", "body": body}
    page.route("**/recount", lambda route: route.fulfill(**answer))
    page.get_by_role("checkbox", name="borda").check()
    page.get_by_role("button", name="Count again").click()
    expect(page.locator("#recount-error")).to_have_text("Away: Later.")
    page.unroute("**/recount")
    page.get_by_role("button", name="Count again").click()
    expect(page.locator("#rules article")).to_have_count(2)


@pytest.mark.parametrize(
    ("answer", "answers", "truth", "recorded"),
    [
        (CHOICE, ["trams", "buses"], "buses", 1),
        ({"kind": "verdict"}, ["yes", "yes"], "no", "no"),
        ({"kind": "number"}, [4, 5], "4.5", 4.5),
        ({"kind": "approval", "options": ["a", "b"]}, [["a"], ["a", "b"]], "b", [1]),
    ],
)
def test_the_truth_is_told_and_everybody_is_scored(
    own_panel: Panel, open_page: OpenPage, answer: dict[str, Any], answers: list[Any], truth: str, recorded: object
) -> None:
    document = own_panel.ask(answer, answers, question="How will it be?")
    page = open_page(own_panel.server, f"/archive/compare?a={document['id']}")
    form = page.locator("#resolution")
    if answer["kind"] == "approval":
        form.get_by_role("checkbox", name=truth).check()
    elif answer["kind"] == "number":
        form.get_by_role("spinbutton").fill(truth)
    else:
        form.get_by_role("combobox").select_option(label=truth)
    form.get_by_role("button", name="Tell the truth").click()
    expect(page.locator("#scores")).to_contain_text("Recorded.")
    expect(page.locator("#scores")).to_contain_text("0 for right and sure of it, 1 for wrong and sure of it")
    scores = [float(each.rpartition(": ")[2]) for each in page.locator("#scores li").all_inner_texts()]
    assert scores == sorted(scores)
    expect(form.get_by_role("button", name="Tell the truth")).to_be_focused()
    assert [each["answer"] for each in own_panel.entries(document, "resolved")] == [recorded]


@pytest.mark.parametrize(
    ("name", "ending"), [("Bundle", "bundle.json"), ("Minutes", "minutes.md"), ("Report", "report.html")]
)
def test_what_it_leaves_behind_is_taken_away(panel: Panel, open_page: OpenPage, name: str, ending: str) -> None:
    page = open_page(panel.server, "/archive?search=come+first")
    with page.expect_download() as downloading:
        page.get_by_role("link", name=name, exact=True).click()
    download = downloading.value
    assert re.fullmatch(rf"conclave-should-trams-come-first-[0-9a-f]{{8}}-{ending}", download.suggested_filename)
    text = Path(download.path()).read_text(encoding="utf-8")
    own = panel.server.ask("GET", "/v1/deliberations?search=come+first").document["items"][0]["id"]
    assert own in text
    if name == "Bundle":
        assert json.loads(text)["entries"]


def test_who_asked_is_shown_to_an_admin_and_a_session_may_count_again(open_page: OpenPage) -> None:
    with running_server(keys=KEYS) as server:
        body = {"question": "Whose?", "agents": {"count": 3}}
        server.post(body, query="?wait=30", headers={"Authorization": "Bearer secret-of-ada"})
        page = sign_in(open_page, server, "secret-of-root")
        expect(page.locator("#hits")).to_contain_text("by ada")
        page.get_by_role("link", name="Other rules").click()
        page.locator("#recount input:not(:disabled)").first.check()
        page.get_by_role("button", name="Count again").click()
        expect(page.locator("#rules article")).to_have_count(2)


def sign_in(open_page: OpenPage, server: RunningServer, secret: str) -> Page:
    page = open_page(server, "/archive")
    page.get_by_label("Key", exact=False).first.fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("/archive$"))
    return page


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_nothing_bars_the_way_and_nothing_is_wider_than_the_window(
    panel: Panel, open_page: OpenPage, barriers: Callable[[Page], list[str]], width: int, dark: bool
) -> None:
    ids = [each["id"] for each in panel.server.ask("GET", "/v1/deliberations").document["items"]]
    hostile, other = ids[0], ids[1]
    page = open_page(panel.server, "/archive", width=width, dark=dark)
    for path in (
        "/archive",
        "/archive?search=nowhere&rule=borda",
        f"/archive/compare?a={hostile}&b={other}",
        f"/archive/compare?a={hostile}",
    ):
        page.goto(f"http://127.0.0.1:{panel.server.port}{path}")
        assert barriers(page) == [], path
        assert not scrolls_sideways(page), path
        assert page.locator("h1").count() == 1
        assert page.locator("main img, main script").count() == 0
        assert "\u202e" not in page.locator("main").inner_text()
