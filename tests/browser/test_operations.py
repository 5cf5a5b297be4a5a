"""Operations in a browser: kept up to date by itself, the halt with its reason in the middle of the work, and what is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server
from tests.patience import eventually

KEYS = "eve:observer:eve-secret-1,root:admin:root-secret-1"
REASON = "the model answers nonsense <b>loudly</b>\N{RIGHT-TO-LEFT OVERRIDE}"
LOOKS: tuple[tuple[int, Literal["dark", "light"]], ...] = (
    (390, "dark"),
    (390, "light"),
    (1440, "light"),
    (1440, "dark"),
)
CONFLICT = ("status of 409",)


@dataclass
class House:
    server: RunningServer
    database: HaltChannelStub
    file: HaltChannelStub

    @property
    def port(self) -> int:
        return self.server.port

    def state_of(self, deliberation_id: str) -> str:
        return str(self.server.ask("GET", f"/v1/deliberations/{deliberation_id}").document["status"])

    def begin(self) -> str:
        """The id of a deliberation whose first agent never answers."""
        body = {"question": "Shall we <i>go on</i>?", "agents": {"count": 4}}
        made = str(self.server.post(body).document["id"])
        eventually(lambda: self.state_of(made) == "running")
        return made


@pytest.fixture
def house() -> Iterator[House]:
    channels = HaltChannelStub("database"), HaltChannelStub("file")
    with running_server(channels=channels, orchestrator=AgentOrchestratorStub(hanging=["archon-1"])) as server:
        yield House(server, *channels)


def halt(page: Page, reason: str = REASON) -> None:
    page.get_by_label("Why is everything to be halted?").fill(reason)
    page.get_by_role("button", name="Halt everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Halt now").click()


def clear(page: Page, reason: str = "another model is in place") -> None:
    page.get_by_label("Why may it go on?").fill(reason)
    page.get_by_role("button", name="Clear the halt").click()
    page.get_by_role("dialog").get_by_role("button", name="Clear it").click()


def test_a_halt_in_the_middle_of_a_deliberation_and_its_end(house: House, open_page: OpenPage) -> None:
    made = house.begin()
    page = open_page(house, "/operations")
    expect(page.get_by_role("link", name="Shall we <i>go on</i>?")).to_have_attribute("href", f"/deliberations/{made}")
    halt(page)
    card = page.locator("#live-halt")
    expect(card).to_contain_text("No agent is asked")
    expect(card).to_contain_text("the model answers nonsense <b>loudly</b>\\u202e")
    eventually(lambda: house.state_of(made) == "halted")
    expect(page.locator("#halt-form")).to_be_hidden()
    expect(page.locator("#live-rest")).to_contain_text("No deliberation is running or queued")
    clear(page)
    expect(card).to_contain_text("Nothing is halted")
    assert house.server.ask("GET", "/v1/halt").document["halted"] is False
    expect(page.locator("#clear-form")).to_be_hidden()


def test_who_halts_and_clears_by_keyboard_keeps_the_focus_where_the_next_step_is(
    house: House, open_page: OpenPage
) -> None:
    page = open_page(house, "/operations")
    for label, answer, state in (
        ("Why is everything to be halted?", "Halt now", "No agent is asked"),
        ("Why may it go on?", "Clear it", "Nothing is halted"),
    ):
        page.get_by_label(label).fill("a drill")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("button", name=answer).press("Enter")
        expect(page.locator("#live-halt")).to_contain_text(state)
        expect(page.get_by_role("heading", name="Halt or go on")).to_be_focused()


def test_a_halt_wants_a_reason_and_a_second_thought(house: House, open_page: OpenPage) -> None:
    page = open_page(house, "/operations")
    page.get_by_role("button", name="Halt everything").click()
    expect(page.locator("#halt-error")).to_have_text("Say why.")
    expect(page.get_by_label("Why is everything to be halted?")).to_be_focused()
    page.get_by_label("Why is everything to be halted?").fill("only a drill")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Leave it").press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Halt everything").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert house.server.ask("GET", "/v1/halt").document["halted"] is False


def test_a_halt_from_elsewhere_is_shown_without_a_reload(house: House, open_page: OpenPage) -> None:
    page = open_page(house, "/operations")
    expect(page.locator("#live-halt")).to_contain_text("Nothing is halted")
    assert house.server.ask("POST", "/v1/halt", {"reason": "somebody else"}).status == 200
    expect(page.locator("#live-halt")).to_contain_text("somebody else")
    expect(page.locator("#alerts")).to_have_text("The system is halted.")
    expect(page.get_by_label("Why may it go on?")).to_be_visible()
    assert house.server.ask("DELETE", "/v1/halt", {"reason": "over"}).status == 200
    expect(page.locator("#live-halt")).to_contain_text("Nothing is halted")


@pytest.mark.parametrize("path", ["/", "/ask", "/archive", "/record", "/operations", "/deliberations/ended"])
def test_the_banner_of_every_page_follows_the_halt(house: House, open_page: OpenPage, path: str) -> None:
    if path.endswith("/ended"):
        path = f"/deliberations/{house.begin()}"
        house.server.ask("POST", f"/v1{path}/cancel")
        eventually(lambda: house.state_of(path.rpartition("/")[2]) == "cancelled")
    page = open_page(house, path)
    banner = page.locator("#halt-banner")
    expect(banner).to_be_empty()
    assert house.server.ask("POST", "/v1/halt", {"reason": REASON}).status == 200
    expect(banner).to_contain_text(
        "No question is put until the halt is cleared: the model answers nonsense <b>loudly</b>\\u202e"
    )
    page.reload()
    expect(banner).to_contain_text("Halted.")
    assert house.server.ask("DELETE", "/v1/halt", {"reason": "over"}).status == 200
    expect(banner).to_be_empty()


def test_the_banner_tells_a_doubt_from_a_halt(house: House, open_page: OpenPage) -> None:
    page = open_page(house, "/ask")
    house.file.problem = "the disk is gone"
    expect(page.locator("#halt-banner")).to_contain_text("In doubt. No question is put until it is known")
    expect(page.locator("#halt-banner")).to_contain_text("the disk is gone")
    house.file.problem = None
    expect(page.locator("#halt-banner")).to_be_empty()


def test_a_page_of_the_room_hears_of_the_halt_by_its_feed_and_asks_nothing(house: House, open_page: OpenPage) -> None:
    house.begin()
    page = open_page(house, "/", allowed=("ERR_FAILED",))
    page.route("**/room/halt", lambda route: route.abort())
    assert house.server.ask("POST", "/v1/halt", {"reason": REASON}).status == 200
    expect(page.locator("#halt-banner")).to_contain_text("Halted.")


def test_a_channel_that_is_away_keeps_a_halt_from_being_cleared_and_the_page_says_so(
    house: House, open_page: OpenPage
) -> None:
    page = open_page(house, "/operations", allowed=CONFLICT)
    halt(page)
    expect(page.get_by_label("Why may it go on?")).to_be_visible()
    house.file.problem = "the disk is gone"
    row = page.locator("#live-halt").get_by_role("row").filter(has_text="file")
    expect(row).to_contain_text("the disk is gone")
    clear(page)
    expect(page.locator("#clear-error")).to_contain_text("these channels are away: file")
    house.file.problem = None
    expect(row).not_to_contain_text("the disk is gone")
    clear(page)
    expect(page.locator("#live-halt")).to_contain_text("Nothing is halted")


def test_what_is_refreshed_leaves_the_focus_on_the_same_deliberation(house: House, open_page: OpenPage) -> None:
    made = house.begin()
    page = open_page(house, "/operations")
    page.locator(f"#row-{made} a").focus()
    house.server.post({"question": "And then?", "agents": {"count": 2}})
    expect(page.locator("#live-rest")).to_contain_text("And then?")
    expect(page.locator(f"#row-{made} a")).to_be_focused()


def test_a_server_that_does_not_answer_is_said_and_asked_again(house: House, open_page: OpenPage) -> None:
    page = open_page(house, "/operations", allowed=("ERR_FAILED",))
    page.route("**/room/operations", lambda route: route.abort())
    expect(page.locator("#freshness")).to_contain_text("No answer since")
    page.unroute("**/room/operations")
    expect(page.locator("#freshness")).to_have_text("Kept up to date")


def test_an_observer_sees_how_things_stand_and_no_halt_button(open_page: OpenPage) -> None:
    with running_server(keys=KEYS) as server:
        page = open_page(server, "/operations")
        page.get_by_label("key").fill("eve-secret-1")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Readiness")).to_be_visible()
        expect(page.get_by_role("button", name="Halt everything")).to_have_count(0)


def test_operations_have_no_barriers_at_any_width_and_in_both_themes(
    house: House, open_page: OpenPage, barriers: Callable[[Page], list[str]]
) -> None:
    house.begin()
    page = open_page(house, "/operations", width=390, dark=True)
    expect(page.locator("#freshness")).to_have_text("Kept up to date")
    found: list[str] = []
    for width, theme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        found += [f"{width} {theme}: {each}" for each in barriers(page)]
        found += [f"{width} {theme} scrolls sideways"] if scrolls_sideways(page) else []
    halt(page)
    expect(page.locator("#live-halt")).to_contain_text("No agent is asked")
    assert found + barriers(page) == []
