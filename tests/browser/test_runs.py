"""Runs in a browser: started from a form, watched to their end without a reload, and drawn, said and tabled alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.browser.whole_server import whole_server
from tests.conclave_fixture import Client

LOOKS: tuple[tuple[int, Literal["dark", "light"]], ...] = (
    (390, "dark"),
    (390, "light"),
    (1440, "light"),
    (1440, "dark"),
)
END_MS = 60_000
REFUSED = ("status of 422",)
# How many of the pixels of a figure are drawn on, and in how many colours.
DRAWN = """figure => {
    const canvas = document.querySelector(`#figure-${figure} canvas`);
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let place = 0; place < pixels.length; place += 4) {
        if (pixels[place + 3] === 255) colours.add(`${pixels[place]},${pixels[place + 1]},${pixels[place + 2]}`);
    }
    return [...colours];
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with whole_server(tmp_path_factory.mktemp("runs")) as client:
        yield client


def form(page: Page, kind: str) -> Any:
    page.locator("summary").filter(has_text=kind.capitalize()).first.click()
    return page.get_by_role("form", name=f"Start a {kind}")


def start(page: Page, kind: str) -> str:
    """The id of the run that begins; the page is the run's by then."""
    page.get_by_role("button", name=f"Start the {kind}").click()
    page.wait_for_url(re.compile("/operations/runs/[0-9a-f-]{36}"))
    return page.url.rpartition("/")[2]


def ended(page: Page, status: str = "completed") -> None:
    expect(page.locator("#live-run")).to_have_attribute("data-ended", "yes", timeout=END_MS)
    expect(page.locator("#live-run")).to_have_attribute("data-status", status)
    expect(page.locator("#announcements")).to_have_text(f"The run is {status}.")


def test_a_population_is_started_and_watched_to_its_end(
    server: Client, open_page: OpenPage, barriers: Callable[[Page], list[str]]
) -> None:
    page = open_page(server, "/operations/runs")
    fields = form(page, "population")
    fields.get_by_label("Agents", exact=True).fill("1000")
    fields.get_by_label("Ticks", exact=True).fill("20")
    fields.get_by_text("More arguments").click()
    fields.get_by_label("Kernel").select_option("numpy")
    run_id = start(page, "population")
    ended(page)
    expect(page.locator("#live-run")).to_contain_text("20 of 20 ticks")
    for name in ("opinions", "moments", "tick_ms", "messages_per_second"):
        assert len(page.evaluate(DRAWN, name)) > 3, name
    arguments = server.ask("GET", f"/v1/runs/{run_id}").document["arguments"]
    assert (arguments["agents"], arguments["ticks"], arguments["kernel"]) == (1000, 20, "numpy")
    figure = page.locator("#figure-tick_ms")
    figure.get_by_text("Table of").click()
    expect(figure.get_by_role("row")).to_have_count(21)
    found: list[str] = []
    for width, theme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=theme)
        found += [f"{width} {theme}: {each}" for each in barriers(page)]
        found += [f"{width} {theme} scrolls sideways"] if scrolls_sideways(page) else []
    assert found == []


def test_a_figure_is_drawn_again_in_the_colours_of_another_theme(server: Client, open_page: OpenPage) -> None:
    made = server.ask("POST", "/v1/runs", {"kind": "pantheon", "arguments": {"task": "count", "cycles": 3}}).document[
        "id"
    ]
    page = open_page(server, f"/operations/runs/{made}")
    expect(page.locator("#live-run")).to_have_attribute("data-ended", "yes", timeout=END_MS)
    expect(page.get_by_role("list", name="The row of roles").get_by_role("listitem")).to_have_count(9)
    expect(page.locator("#figure-bus_us canvas")).to_be_visible()
    light = page.evaluate(DRAWN, "bus_us")
    assert "31,95,191" in light
    page.get_by_label("Colours").select_option("dark")
    dark = page.evaluate(DRAWN, "bus_us")
    assert "127,176,255" in dark
    assert "31,95,191" not in dark


def test_a_soak_of_seconds_shows_its_cycles_and_criteria(server: Client, open_page: OpenPage) -> None:
    page = open_page(server, "/operations/runs", width=390)
    fields = form(page, "soak")
    for name, value in (("Agents", "3"), ("Duration", "0.05"), ("Interval", "0.5")):
        fields.get_by_label(name, exact=True).fill(value)
    start(page, "soak")
    expect(page.locator("#live-run")).to_contain_text(re.compile("[1-5] of 6 cycles"), timeout=END_MS)
    ended(page)
    expect(page.locator("#live-run")).to_contain_text("6 of 6 cycles")
    expect(page.locator("#live-run")).to_contain_text("All criteria are met.")
    expect(page.get_by_role("row").filter(has_text="Crashes that were not wanted")).to_contain_text("passed")
    assert len(page.evaluate(DRAWN, "duration_ms")) > 3
    assert not scrolls_sideways(page)


def test_a_swarm_shows_its_flips_and_how_likely_they_are(server: Client, open_page: OpenPage) -> None:
    page = open_page(server, "/operations/runs", dark=True)
    form(page, "swarm").get_by_label("Seed").fill("7")
    run_id = start(page, "swarm")
    ended(page)
    result = server.ask("GET", f"/v1/runs/{run_id}").document["result"]
    split = page.locator("section").filter(has=page.get_by_role("heading", name="Heads and tails"))
    expect(split).to_contain_text(f"{result['heads']} (")
    expect(split).to_contain_text("a fair coin")
    expect(page.locator("#figure-latency_ms .summary")).to_contain_text("95 % below")
    assert len(page.evaluate(DRAWN, "latency_ms")) > 3


def test_a_run_is_cancelled_after_a_second_thought(server: Client, open_page: OpenPage) -> None:
    arguments = {"agents": 2, "duration": 60, "interval": 1}
    made = server.ask("POST", "/v1/runs", {"kind": "soak", "arguments": arguments}).document["id"]
    page = open_page(server, f"/operations/runs/{made}")
    page.get_by_role("button", name="Cancel this run").click()
    page.get_by_role("dialog").get_by_role("button", name="Let it go on").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Cancel this run").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()
    ended(page, "cancelled")
    expect(page.get_by_role("button", name="Cancel this run")).to_be_hidden()


def test_what_cannot_be_run_is_said_beside_its_field(
    server: Client, open_page: OpenPage, barriers: Callable[[Page], list[str]]
) -> None:
    page = open_page(server, "/operations/runs", width=390, allowed=REFUSED)
    fields = form(page, "population")
    fields.get_by_label("Agents", exact=True).fill("many")
    fields.get_by_text("More arguments").click()
    fields.get_by_label("Peers").fill("-1")
    fields.get_by_text("More arguments").click()
    page.get_by_role("button", name="Start the population").click()
    agents = fields.get_by_label("Agents", exact=True)
    expect(agents).to_have_attribute("aria-invalid", "true")
    expect(agents).to_be_focused()
    expect(page.locator("#population-agents-error")).to_contain_text("must be a whole number from 1 to")
    expect(agents).to_have_accessible_description(re.compile("must be a whole number"))
    assert barriers(page) == []
    assert not scrolls_sideways(page)


def test_a_run_whose_answer_was_lost_is_started_once_also_after_a_reload(server: Client, open_page: OpenPage) -> None:
    page = open_page(server, "/operations/runs", allowed=("ERR_FAILED",))
    task = "count these words once"

    def write() -> None:
        form(page, "pantheon").get_by_label("Task").fill(task)

    def cut(route: Route) -> None:
        route.fetch()
        route.abort()

    def begun() -> list[str]:
        items = server.ask("GET", "/v1/runs").document["items"]
        return [each["id"] for each in items if each["arguments"].get("task") == task]

    page.route("**/v1/runs", cut, times=1)
    write()
    page.get_by_role("button", name="Start the pantheon").dblclick()
    expect(page.locator("#announcements")).to_contain_text("Trying again in")
    page.reload()
    write()
    assert begun() == [start(page, "pantheon")]
    page.goto(f"http://127.0.0.1:{server.port}/operations/runs")
    write()
    assert start(page, "pantheon") in begun()
    assert len(begun()) == 2


def test_the_tiles_and_the_words_of_the_figures_name_the_same_numbers(server: Client, open_page: OpenPage) -> None:
    arguments = {"agents": 500, "ticks": 30, "kernel": "numpy"}
    made = server.ask("POST", "/v1/runs", {"kind": "population", "arguments": arguments}).document["id"]
    page = open_page(server, f"/operations/runs/{made}")
    ended_page = page.locator("#live-run")
    expect(ended_page).to_have_attribute("data-ended", "yes", timeout=END_MS)
    tiles = dict(
        zip(page.locator(".tiles dt").all_inner_texts(), page.locator(".tiles dd").all_inner_texts(), strict=True)
    )
    rate = page.locator("#figure-messages_per_second .summary")
    expect(rate).to_contain_text(f"{tiles['Messages a second']} messages/s on average")
    ticks = page.locator("#figure-tick_ms .summary")
    expect(ticks).to_contain_text(f"Half are below {tiles['Tick, p50']}, 95 % below {tiles['Tick, p95']}.")


def test_on_paper_the_tables_stand_for_the_figures(server: Client, open_page: OpenPage) -> None:
    made = server.ask("POST", "/v1/runs", {"kind": "pantheon", "arguments": {"task": "count"}}).document["id"]
    page = open_page(server, f"/operations/runs/{made}")
    expect(page.locator("#live-run")).to_have_attribute("data-ended", "yes", timeout=END_MS)
    figure = page.locator("#figure-bus_us")
    expect(figure.get_by_role("table")).to_be_hidden()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(figure.get_by_role("table")).to_be_visible()
    expect(figure.locator(".plot")).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    expect(figure.get_by_role("table")).to_be_hidden()
