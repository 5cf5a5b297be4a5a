"""Into the room with a key and out again, and what every page's script does."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from application.pages.visible_text import visible
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server

IMPORT = "const page = await import('/static/page.js');"
KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("API key").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def test_a_key_opens_the_page_that_was_asked_for_and_sign_out_closes_it(
    server: RunningServer, open_page: OpenPage
) -> None:
    page = open_page(server, "/ask?a=1")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    sign_in(page, "bob-secret-1")
    page.wait_for_url("**/ask?a=1")
    expect(page.locator(".who")).to_contain_text("bob")
    assert page.evaluate("document.cookie") == ""
    (cookie,) = page.context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite"), cookie.get("path")) == (True, "Strict", "/")
    page.get_by_label("What is to be decided?").fill("A secret question")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert page.evaluate("sessionStorage.length") == 0
    assert page.context.cookies() == []
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_a_wrong_key_is_told_beside_its_field(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/ask")
    sign_in(page, "bob-secret-2")
    field = page.get_by_label("API key")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("alert").first).to_contain_text("not known here")
    expect(field).to_be_focused()
    sign_in(page, "bob-secret-1")
    page.wait_for_url("**/ask")


def test_an_observer_is_told_who_may_ask_and_how_to_come_in_otherwise(
    server: RunningServer, open_page: OpenPage
) -> None:
    page = open_page(server, "/ask")
    sign_in(page, "ann-secret-1")
    page.wait_for_url("**/ask")
    expect(page.get_by_text("Your key has the role observer")).to_be_visible()
    assert page.get_by_role("button", name="Ask the chamber").count() == 0
    assert page.locator("main").get_by_role("textbox").count() == 0
    page.get_by_role("link", name="Sign in with another key").click()
    expect(page.get_by_text("You are signed in as ann")).to_be_visible()
    sign_in(page, "bob-secret-2")
    expect(page.get_by_role("alert").first).to_contain_text("not known here")
    sign_in(page, "bob-secret-1")
    page.wait_for_url("**/ask")
    expect(page.locator(".who")).to_contain_text("bob")
    expect(page.get_by_role("button", name="Ask the chamber")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/deliberations/{own}"])
def test_a_page_that_follows_says_that_it_is_signed_out_when_another_tab_signs_out(
    open_page: OpenPage, path: str
) -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(keys=KEYS, orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        headers = {"Authorization": "Bearer bob-secret-1"}
        own = server.post({"question": "Shall we?", "agents": {"count": 2}}, headers=headers).document["id"]
        page = open_page(server, path.format(own=own))
        sign_in(page, "bob-secret-1")
        expect(page.locator(".seat.is-asked")).to_have_count(2)
        second = open_page(server, "/ask", beside=page)
        second.get_by_role("button", name="Sign out").click()
        second.wait_for_url("**/sign-in")
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        sign_in(page, "bob-secret-1")
        expect(page.locator(".seat.is-asked")).to_have_count(2)


def test_who_is_signed_in_at_one_server_stays_so_when_signing_in_and_out_at_another(
    server: RunningServer, open_page: OpenPage
) -> None:
    with running_server(keys=KEYS) as other:
        page = open_page(server, "/ask")
        sign_in(page, "bob-secret-1")
        page.wait_for_url("**/ask")
        beside = open_page(other, "/ask", beside=page)
        sign_in(beside, "ann-secret-1")
        beside.wait_for_url("**/ask")
        page.reload()
        expect(page.locator(".who")).to_contain_text("bob")
        beside.get_by_role("button", name="Sign out").click()
        beside.wait_for_url("**/sign-in")
        page.reload()
        expect(page.locator(".who")).to_contain_text("bob")


def test_a_page_whose_session_ended_leads_to_the_sign_in(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/ask", allowed=("status of 401",))
    sign_in(page, "bob-secret-1")
    page.wait_for_url("**/ask")
    page.context.clear_cookies()
    page.get_by_label("What is to be decided?").fill("Shall we?")
    page.wait_for_url("**/sign-in?next=%2Fask&ended=yes")
    expect(page.get_by_role("status").first).to_contain_text("You are signed out.")
    sign_in(page, "bob-secret-1")
    expect(page.get_by_label("What is to be decided?")).to_have_value("Shall we?")


def test_a_token_of_an_earlier_session_is_renewed_without_a_word(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/ask", allowed=("status of 403",))
    sign_in(page, "bob-secret-1")
    page.wait_for_url("**/ask")
    second = open_page(server, "/ask", beside=page)
    second.get_by_role("button", name="Sign out").click()
    sign_in(second, "bob-secret-1")
    second.wait_for_url("**/")
    page.get_by_label("What is to be decided?").fill("Shall we?")
    expect(page.locator('[data-amount="calls.expected"]')).to_have_text("72")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_sign_in_has_no_barriers(
    server: RunningServer, open_page: OpenPage, barriers: Callable[[Page], list[str]], width: int, dark: bool
) -> None:
    page = open_page(server, "/sign-in?refused=key", width=width, dark=dark)
    assert not scrolls_sideways(page)
    assert barriers(page) == []


def test_a_theme_chosen_by_hand_stays(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/sign-in")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Colours").select_option("dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != light
    page.get_by_label("Colours").select_option("")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


def test_scripts_spell_out_what_is_unseen_as_the_server_does(server: RunningServer, open_page: OpenPage) -> None:
    texts = [
        "plain",
        "  a \t\n b\u2028c\u00a0d\u3000e ",
        "<script>alert(1)</script> & \"'",
        "\x1b[31mred\x07\x00",
        "\u202egnp.exe\u202c \u2066x\u2069 \u200e\u200f\ufeff",
        "a\u0301\u0302\u0303\u0304\u0305\u0306b",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u06cc\u200c\u0647 a\u200db \u200d",
        "\ue000\U000e0041\U0010ffff\u0378",
        "\U0001f600" * 3,
        "",
    ]
    page = open_page(server, "/sign-in")
    script = (
        f"async ([texts, limit]) => {{ {IMPORT} return texts.map((text) => page.visible(text, limit ?? undefined)); }}"
    )
    assert page.evaluate(script, [texts, None]) == [visible(text) for text in texts]
    assert page.evaluate(script, [texts, 5]) == [visible(text, limit=5) for text in texts]


def test_scripts_make_no_handler_or_style_of_an_attribute(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/sign-in")
    make = "page.element('p', {attributes: {[name]: 'x'}}); return 'made';"
    script = f"async (name) => {{ {IMPORT} try {{ {make} }} catch (error) {{ return error.name; }} }}"
    assert [page.evaluate(script, name) for name in ("onclick", "ONLOAD", "style")] == ["TypeError"] * 3
    assert page.evaluate(script, "title") == "made"


def test_quantities_are_said_as_people_read_them(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/sign-in")
    script = f"async ([what, values]) => {{ {IMPORT} return values.map((value) => page.formatted[what](value)); }}"
    assert page.evaluate(script, ["duration", [0, 4.24, 59.4, 60, 187, 3729, None]]) == [
        "0.0 s",
        "4.2 s",
        "59 s",
        "1:00 min",
        "3:07 min",
        "1:02:09 h",
        "–",
    ]
    assert page.evaluate(script, ["money", [0, 0.00421, 1234.5, None]]) == ["$0.00", "$0.0042", "$1,234.50", "–"]
    assert page.evaluate(script, ["number", [1234567, 0.126, None]]) == ["1,234,567", "0.13", "–"]
