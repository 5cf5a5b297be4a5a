"""Putting a question from a browser: the quote before it, one deliberation after it, and what is wrong beside its field."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server

REFUSED = ("status of 422",)
CUT = ("ERR_FAILED",)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def question(request: pytest.FixtureRequest) -> str:
    """A question that no other test puts."""
    return f"Should the city centre be closed to private cars? ({request.node.name})"


def put(server: RunningServer, question: str) -> list[dict[str, Any]]:
    """The deliberations of that question."""
    return [each for each in server.ask("GET", "/v1/deliberations").document["items"] if each["question"] == question]


def write(page: Page, question: str) -> None:
    page.get_by_label("What is to be decided?").fill(question)


def choose(page: Page, kind: str, *options: str) -> None:
    page.locator(f'input[name="/answer/kind"][value="{kind}"]').check()
    for number, option in enumerate(options, start=1):
        page.get_by_label(f"Option {number}", exact=True).fill(option)


def ask(page: Page) -> None:
    page.get_by_role("button", name="Ask the chamber").click()


def arrive(page: Page) -> str:
    """The id of the deliberation whose chamber the page is in by now."""
    page.wait_for_url(re.compile("/deliberations/"))
    return page.url.rpartition("/")[2]


def test_a_question_with_all_its_settings_is_put_as_it_was_written(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask")
    write(page, question)
    page.get_by_label("What should everybody know?").fill("Deliveries before nine are allowed.\nSo are buses.")
    choose(page, "ranking", "yes", "no", "weekends only")
    page.get_by_label("How many of them").fill("9")
    page.locator('input[name="/protocol/kind"][value="debate"]').check()
    page.get_by_label("Exchanges").fill("1")
    page.get_by_label("Neighbours that each one hears").fill("2")
    page.get_by_label("How ballots are counted").select_option("minimax")
    page.get_by_label("What breaks a tie").select_option("lottery")
    page.get_by_label("Strength of a pairwise win").select_option("margins")
    page.get_by_label("A ballot counts").select_option("confidence")
    page.get_by_text("Quorum and limits").click()
    page.get_by_label("Quorum", exact=True).fill("0.75")
    page.get_by_label("Time for one agent, in seconds").fill("20")
    page.get_by_label("Attempts of one agent").fill("1")
    page.get_by_text("Sampling, seed, control and origin").click()
    page.get_by_label("Temperature").fill("0.2")
    page.get_by_label("Seed").fill("7")
    page.get_by_label("Where the topic came from").fill("petition")
    ask(page)
    found = server.ask("GET", f"/v1/deliberations/{arrive(page)}").document
    assert found["question"] == question
    assert found["answer"]["kind"] == "ranking"
    assert found["answer"]["options"] == ["yes", "no", "weekends only"]
    assert {"kind": "debate", "rounds": 1, "neighbours": 2}.items() <= found["protocol"].items()
    rule = {"kind": "minimax", "tie_break": "lottery", "strength": "margins", "weighted_by": "confidence"}
    assert rule.items() <= found["rule"].items()
    assert found["roll_call"]["asked"] in {0, 9}
    asked = server.conclave.deliberations.get(found["id"], key_name=None)
    specification = server.call(asked).specification
    assert specification.quorum.min_answered_fraction == 0.75
    assert (specification.limits.agent_timeout_s, specification.limits.max_attempts) == (20, 1)
    assert (specification.sampling.temperature, specification.seed) == (0.2, 7)
    assert specification.topic_origin == "petition"
    assert len(specification.roster.agents) == 9


def test_a_score_a_number_and_a_control_are_put_too(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask")
    write(page, question)
    choose(page, "score")
    page.get_by_label("Least", exact=True).fill("-1.5")
    page.get_by_label("Most", exact=True).fill("10")
    page.get_by_text("Sampling, seed, control and origin").click()
    page.get_by_label("One model alone, as a control").check()
    ask(page)
    specification = server.call(server.conclave.deliberations.get(arrive(page), key_name=None)).specification
    assert (specification.question.answer.minimum, specification.question.answer.maximum) == (-1.5, 10)
    assert specification.control is not None
    page.goto(f"http://127.0.0.1:{server.port}/ask")
    write(page, question)
    choose(page, "number")
    page.get_by_role("textbox", name="Unit").fill("days")
    ask(page)
    specification = server.call(server.conclave.deliberations.get(arrive(page), key_name=None)).specification
    assert specification.question.answer.unit == "days"


def test_only_rules_that_fit_the_answer_are_offered(server: RunningServer, open_page: OpenPage) -> None:
    rankings = ["schulze", "borda", "copeland", "minimax", "irv", "plurality"]
    page = open_page(server, "/ask")
    for kind, protocol, rules in (
        ("verdict", "poll", ["threshold", "plurality"]),
        ("choice", "poll", ["plurality", "threshold"]),
        ("approval", "delphi", ["approval"]),
        ("ranking", "poll", rankings),
        ("score", "poll", ["median", "trimmed mean"]),
        ("probability", "poll", ["median", "trimmed mean", "mean odds"]),
        ("number", "poll", ["median", "trimmed mean"]),
        ("text", "poll", ["synthesis"]),
        ("text", "common_ground", rankings),
    ):
        choose(page, kind)
        page.locator(f'input[name="/protocol/kind"][value="{protocol}"]').check()
        offered = page.get_by_label("How ballots are counted").locator("option").all_inner_texts()
        assert [text.removesuffix(" (usual)") for text in offered] == rules


def test_the_quote_stands_there_before_anything_is_sent(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask")
    expect(page.locator("#quote")).to_be_hidden()
    write(page, question)
    expect(page.locator('[data-amount="calls.expected"]')).to_have_text("72")
    expect(page.locator('[data-amount="calls.at_most"]')).to_have_text("144")
    page.get_by_label("How many of them").fill("5")
    expect(page.locator('[data-amount="calls.at_most"]')).to_have_text("10")
    assert put(server, question) == []


def test_quotes_are_asked_for_after_the_last_change_and_outdated_ones_are_given_up(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask")
    page.clock.install(time=datetime(2027, 1, 1, tzinfo=UTC))
    page.reload()
    page.clock.pause_at(datetime(2027, 1, 1, 1, tzinfo=UTC))
    asked: list[str] = []
    given_up: list[str] = []
    page.on("request", lambda request: asked.append(urlsplit(request.url).path))
    page.on("requestfailed", lambda request: given_up.append(urlsplit(request.url).path))
    page.route("**/v1/quotes", lambda _route: None, times=1)
    page.get_by_label("What is to be decided?").press_sequentially(question[:20])
    page.clock.run_for(399)
    page.get_by_label("What is to be decided?").fill(question)
    page.clock.run_for(399)
    assert "/v1/quotes" not in asked
    with page.expect_request("**/v1/quotes"):
        page.clock.run_for(1)
    page.get_by_label("How many of them").fill("5")
    page.clock.run_for(400)
    expect(page.locator('[data-amount="calls.at_most"]')).to_have_text("10")
    assert asked.count("/v1/quotes") == 2
    assert given_up == ["/v1/quotes"]


def test_a_double_click_and_every_further_enter_ask_once(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask")
    sent: list[Route] = []

    def hold(route: Route) -> None:
        sent.append(route)

    page.route("**/v1/deliberations", hold)
    write(page, question)
    page.get_by_role("button", name="Ask the chamber").dblclick()
    page.get_by_label("How many of them").press("Enter")
    expect(page.get_by_text("Asking …")).to_be_visible()
    assert len(sent) == 1
    sent[0].continue_()
    arrive(page)
    assert len(put(server, question)) == 1


def cut_once(page: Page) -> None:
    """The first question reaches the server, and its answer never comes back."""

    def cut(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/v1/deliberations", cut, times=1)


def test_a_lost_connection_is_tried_again_and_asks_once(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask", allowed=CUT)
    write(page, question)
    cut_once(page)
    ask(page)
    arrive(page)
    assert len(put(server, question)) == 1


def test_a_reload_after_a_cut_connection_asks_once(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask", allowed=CUT)
    write(page, question)
    choose(page, "choice", "yes", "no")
    cut_once(page)
    ask(page)
    expect(page.get_by_text("Trying again in")).to_be_visible()
    page.reload()
    expect(page.get_by_text("it is asked once, whether or not it arrived")).to_be_visible()
    ask(page)
    found = arrive(page)
    assert [each["id"] for each in put(server, question)] == [found]


def test_a_second_tab_of_the_same_form_asks_once(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask")
    write(page, question)
    with page.expect_popup() as opened:
        page.evaluate("() => { window.open('/ask'); }")
    second = opened.value
    expect(second.get_by_label("What is to be decided?")).to_have_value(question)
    ask(page)
    ask(second)
    assert arrive(page) == arrive(second)
    assert len(put(server, question)) == 1


def test_the_same_question_asked_anew_is_another_one(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask")
    for _ in range(2):
        write(page, question)
        ask(page)
        arrive(page)
        page.goto(f"http://127.0.0.1:{server.port}/ask")
        expect(page.get_by_label("What is to be decided?")).to_have_value("")
    assert len(put(server, question)) == 2


def test_a_draft_survives_a_reload(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask")
    write(page, question)
    choose(page, "ranking", "yes", "no", "weekends only")
    page.get_by_label("How ballots are counted").select_option("borda")
    page.get_by_text("Quorum and limits").click()
    page.get_by_label("Quorum", exact=True).fill("0.25")
    page.reload()
    expect(page.get_by_label("What is to be decided?")).to_have_value(question)
    expect(page.get_by_label("Option 3", exact=True)).to_have_value("weekends only")
    expect(page.get_by_label("How ballots are counted")).to_have_value("borda")
    expect(page.get_by_label("Quorum", exact=True)).to_have_value("0.25")
    expect(page.get_by_label("Quorum", exact=True)).to_be_visible()
    page.get_by_role("button", name="Clear the form").click()
    page.reload()
    expect(page.get_by_label("What is to be decided?")).to_have_value("")


def test_what_the_server_refuses_stands_beside_its_field(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask", allowed=REFUSED)
    write(page, question)
    choose(page, "choice", "yes", "no", "YES")
    ask(page)
    expect(page.locator("#summary")).to_be_focused()
    expect(page.locator("#summary")).to_contain_text("reads the same as option number 1")
    third = page.get_by_label("Option 3", exact=True)
    expect(third).to_have_attribute("aria-invalid", "true")
    expect(third).to_have_accessible_description("reads the same as option number 1")
    expect(page.get_by_label("Option 1", exact=True)).not_to_have_attribute("aria-invalid", "true")
    page.locator("#summary").get_by_role("link", name="Option 3").click()
    expect(third).to_be_focused()
    third.fill("weekends only")
    expect(page.locator("#summary")).to_be_hidden()
    expect(third).not_to_have_attribute("aria-invalid", "true")
    assert put(server, question) == []


def test_what_is_missing_is_said_before_anything_is_sent(server: RunningServer, open_page: OpenPage) -> None:
    page = open_page(server, "/ask")
    choose(page, "score")
    page.get_by_text("Quorum and limits").click()
    page.get_by_label("Quorum", exact=True).fill("2")
    page.get_by_text("Quorum and limits").click()
    ask(page)
    links = page.locator("#summary").get_by_role("link").all_inner_texts()
    assert links == ["What is to be decided?", "Least", "Most", "Quorum"]
    expect(page.get_by_label("Quorum", exact=True)).to_be_visible()
    expect(page.get_by_label("Quorum", exact=True)).to_have_attribute("aria-invalid", "true")


def test_why_nothing_can_be_asked_now_stays_told_although_there_is_a_quote(
    server: RunningServer, open_page: OpenPage, question: str
) -> None:
    page = open_page(server, "/ask", allowed=("status of 503",))
    halted = {
        "type": "urn:conclave:problem:system-halted",
        "title": "The system is halted",
        "status": 503,
        "detail": "x",
    }
    page.route(
        "**/v1/deliberations",
        lambda route: route.fulfill(status=503, json=halted, content_type="application/problem+json"),
    )
    write(page, question)
    ask(page)
    expect(page.locator("#summary")).to_be_focused()
    expect(page.locator('[data-amount="calls.expected"]')).to_have_text("72")
    expect(page.locator("#summary")).to_contain_text("The system is halted")
    expect(page.locator("#summary")).to_be_focused()
    page.unroute("**/v1/deliberations")
    ask(page)
    arrive(page)
    assert len(put(server, question)) == 1


def tab_to(page: Page, selector: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    pytest.fail(f"the keyboard does not get to {selector}")


def test_everything_is_done_by_keyboard_alone(server: RunningServer, open_page: OpenPage, question: str) -> None:
    page = open_page(server, "/ask")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, "#field-question")
    page.keyboard.type(question)
    tab_to(page, '[name="/answer/kind"]')
    page.keyboard.press("ArrowRight")
    tab_to(page, "#field-answer-options-0")
    page.keyboard.type("yes")
    page.keyboard.press("Enter")
    page.keyboard.type("no")
    tab_to(page, "#send")
    page.keyboard.press("Enter")
    found = server.ask("GET", f"/v1/deliberations/{arrive(page)}").document
    assert found["answer"]["options"] == ["yes", "no"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_form_has_no_barriers(
    server: RunningServer, open_page: OpenPage, barriers: Callable[[Page], list[str]], width: int, dark: bool
) -> None:
    page = open_page(server, "/ask", width=width, dark=dark)
    assert not scrolls_sideways(page)
    assert barriers(page) == []
    choose(page, "choice", "a" * 200)
    for summary in page.locator("summary").all():
        summary.click()
    page.locator("#send").click()
    expect(page.locator("#summary")).to_be_focused()
    assert not scrolls_sideways(page)
    assert barriers(page) == []
