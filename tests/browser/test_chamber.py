"""The chamber in a real browser: live seats, a panel for each, and everything as it stands after whatever happened."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import Client, running_server
from tests.llm_server.handle import LlmServer
from tests.servers.keeper import free_port

AGENTS = 9
REPOSITORY = Path(__file__).parents[2]
CHOICE = {"kind": "choice", "options": ["yes", "no", "weekends only"]}
HOSTILE = "<img src=x onerror=alert(1)>\u202e<script>alert(2)</script>"
FAILURES: Mapping[str, Any] = {
    "answers": {
        "voice 0 ": '{"answer": "no", "confidence": 0.8, "reasoning": "Deliveries come first."}',
        "voice ": '{"answer": "yes", "confidence": 0.6, "reasoning": "Children play there."}',
    },
    "faults": [
        {"fault": "500", "contains": "voice 1 "},
        {"fault": "hang", "contains": "voice 2 "},
        {"fault": "not_ballot", "contains": "voice 3 "},
        {"fault": "hold", "contains": ["voice 4 ", "voice 5 "]},
    ],
}


@pytest.fixture(scope="module")
def llm() -> Iterator[LlmServer]:
    """The far end."""
    with LlmServer() as server:
        yield server


@contextmanager
def serving(llm: LlmServer, folder: Path, *, port: int) -> Iterator[tuple[Client, subprocess.Popen[str]]]:
    """A server process on that port."""
    settings = {
        "PYTHONPATH": f"{REPOSITORY / 'src'}",
        "HOME": str(folder),
        "CONCLAVE_DATA_DIR": str(folder / "data"),
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
    }
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", str(port), "--json"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, env=settings, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and "http://" not in line:
            continue
        assert line, (folder / "log").read_text()
        yield Client(port), process
    finally:
        process.kill()
        process.communicate()


def ask(client: Client, *, question: str = "Close the centre?", **more: Any) -> str:
    """Put a question; the id of the deliberation."""
    members = [{"id": f"voice-{n}", "persona": f"You are voice {n} of the town."} for n in range(AGENTS)]
    body = {"question": question, "answer": CHOICE, "agents": {"members": members}, **more}
    answer = client.post(body)
    assert answer.status == 202, answer
    return str(answer.document["id"])


def seats(page: Page, state: str) -> list[int]:
    """The numbers of the seats in that state."""
    found = page.locator(f".seat.is-{state}").evaluate_all("nodes => nodes.map(node => Number(node.dataset.seat))")
    return sorted(found)


def wait_for_seats(page: Page, state: str, numbers: list[int]) -> None:
    """Return once just these are in that state."""
    script = (
        "([state, wanted]) => JSON.stringify([...document.querySelectorAll(`.seat.is-${state}`)]"
        ".map(node => Number(node.dataset.seat)).sort((a, b) => a - b)) === JSON.stringify(wanted)"
    )
    page.wait_for_function(script, arg=[state, numbers])


def test_a_live_deliberation_shows_who_thinks_who_answered_and_how_the_others_failed_and_then_its_outcome(
    open_page: OpenPage, llm: LlmServer, tmp_path: Path, barriers: Callable[[Page], list[str]]
) -> None:
    llm.reset()
    llm.configure(**FAILURES)
    with serving(llm, tmp_path, port=free_port()) as (client, _):
        page = open_page(client, "/")
        expect(page.get_by_role("heading", level=1)).to_have_text("Nothing has been asked yet")
        ask(client, limits={"agent_timeout_s": 8, "max_attempts": 1})
        wait_for_seats(page, "asked", [2, 4, 5])
        wait_for_seats(page, "answered", [0, 6, 7, 8])
        assert (seats(page, "failed"), seats(page, "invalid")) == ([1], [3])
        first = page.locator('[data-seat="0"]')
        expect(first.locator("text")).to_have_text("B")
        expect(first).to_have_attribute("aria-label", re.compile(r"Seat 1, voice-0: answered, B: no"))
        expect(page.locator('[data-bind="roll-failed"]')).to_have_text("1")
        expect(page.locator('[data-bind="progress"]')).to_have_text("6 of 9 have ended, 3 are thinking")
        expect(page.locator("#clock")).to_have_text(re.compile(r"29:\d\d min"))
        llm.release()
        wait_for_seats(page, "asked", [2])
        assert barriers(page) == []
        expect(page.locator("#decision-title")).to_contain_text("Decision:")
        expect(page.locator("#decision")).to_contain_text("decided")
        assert seats(page, "timed_out") == [2]
        expect(page.locator("#minority")).to_contain_text("Deliveries come first.")
        assert barriers(page) == []


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_a_page_that_saw_the_end_becomes_the_page_that_a_later_visitor_is_given(
    open_page: OpenPage, llm: LlmServer, tmp_path: Path, motion: str
) -> None:
    told = """() => {
      const told = (node) => node.nodeType === Node.TEXT_NODE ? node.data.replace(/\\s+/g, " ").trim()
        : [node.tagName, [...node.attributes].map(({ name, value }) => `${name}=${value}`).sort(),
           [...node.childNodes].filter((each) => each.nodeType !== Node.COMMENT_NODE).map(told).filter((each) => each !== "")];
      return JSON.stringify(told(document.getElementById("chamber")));
    }"""
    llm.reset()
    llm.configure(**FAILURES)
    with serving(llm, tmp_path, port=free_port()) as (client, _):
        own = ask(client, limits={"agent_timeout_s": 8, "max_attempts": 1})
        page = open_page(client, f"/deliberations/{own}", reduced_motion=motion)
        wait_for_seats(page, "asked", [2, 4, 5])
        page.locator('[data-seat="0"]').focus()
        llm.release()
        expect(page.locator("#decision")).to_be_visible()
        later = open_page(client, f"/deliberations/{own}")
        expect(later.locator("#decision")).to_be_visible()
        order = later.locator("[data-seat]").evaluate_all("nodes => nodes.map(node => node.dataset.seat)")
        assert order != sorted(order)
        page.wait_for_function(f"wanted => ({told})() === wanted", arg=later.evaluate(told))
        expect(page.locator('[data-seat="0"]')).to_be_focused()


def test_what_a_model_without_a_price_costs_is_not_known_wherever_it_stands(
    open_page: OpenPage, llm: LlmServer, tmp_path: Path
) -> None:
    llm.reset()
    with serving(llm, tmp_path, port=free_port()) as (client, _):
        page = open_page(client, "/ask")
        page.get_by_label("What is to be decided?").fill("Close the centre?")
        expect(page.locator('[data-amount="cost_usd.at_most"]')).to_have_text("not known")
        page.get_by_label("How many of them").fill("3")
        page.get_by_role("button", name="Ask the chamber").click()
        expect(page.locator("#decision-title")).not_to_be_empty()
        expect(page.locator('[data-bind="cost"]')).to_have_text("not known")
        page.goto(f"http://127.0.0.1:{client.port}/operations")
        spending = page.locator("section").filter(has=page.get_by_role("heading", name="Spending"))
        expect(spending.get_by_role("cell", name="not known").first).to_be_visible()
        assert "$0.00" not in spending.inner_text()


@pytest.mark.parametrize(
    "question", ["Close it?", "Should the old harbour be opened to swimmers in summer, and at whose cost? " * 3]
)
def test_the_verdict_and_every_seat_are_seen_without_scrolling(open_page: OpenPage, question: str) -> None:
    with running_server() as server:
        own = server.post({"question": question.strip(), "answer": CHOICE}, query="?wait=20").document["id"]
        page = open_page(server, f"/deliberations/{own}")
        expect(page.locator("#decision-title")).to_be_in_viewport(ratio=1)
        expect(page.locator("#hemicycle")).to_be_in_viewport(ratio=1)
        page.set_viewport_size({"width": 390, "height": 844})
        tops = page.evaluate(
            "ids => ids.map(id => document.getElementById(id).getBoundingClientRect().top)",
            ["decision-title", "hemicycle", "tally-title", "winner-title", "minority-title"],
        )
        assert tops == sorted(tops)
        assert not scrolls_sideways(page)


def test_the_panel_of_a_seat_opens_by_mouse_and_by_keyboard_and_gives_the_focus_back(
    open_page: OpenPage, barriers: Callable[[Page], list[str]]
) -> None:
    with running_server(orchestrator=AgentOrchestratorStub(failing=["archon-2"])) as server:
        body = {"question": "Close it?", "answer": CHOICE, "agents": {"roster": "archons", "count": 12}}
        own = server.post(body, query="?wait=20").document["id"]
        page = open_page(server, f"/deliberations/{own}")
        panel = page.locator("#seat-panel")
        page.locator('[data-seat="1"]').click()
        expect(panel).to_contain_text("archon-2")
        expect(panel).to_contain_text("simulated_failure")
        expect(panel.get_by_role("link", name="inclusion proof")).to_have_attribute("href", re.compile("tree_size="))
        expect(page.locator("#seat-title")).to_be_focused()
        assert barriers(page) == []
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(page.locator('[data-seat="1"]')).to_be_focused()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        focused = page.evaluate("document.activeElement.dataset.seat")
        page.keyboard.press("Enter")
        expect(panel).to_contain_text(f"Seat {int(focused) + 1}")
        assert page.locator('[data-seat][tabindex="0"]').count() == 1
        page.get_by_role("link", name="Close").click()
        expect(page.locator(f'[data-seat="{focused}"]')).to_be_focused()


def test_a_person_cancels_only_after_saying_so_twice(open_page: OpenPage) -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        own = server.post({"question": "Close it?", "answer": CHOICE}).document["id"]
        page = open_page(server, f"/deliberations/{own}")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_role("button", name="Let it go on").click()
        assert server.ask("GET", f"/v1/deliberations/{own}").document["status"] == "running"
        page.get_by_role("button", name="Cancel", exact=True).click()
        page.get_by_role("button", name="Cancel the deliberation").click()
        expect(page.locator("#decision-title")).to_contain_text("the deliberation was cancelled")
        wait_for_seats(page, "cancelled", list(range(72)))
        expect(page.locator("#question")).to_be_focused()


def test_a_halt_in_its_midst_shows_who_was_halted_and_what_was_said_until_then(open_page: OpenPage) -> None:
    hanging = [f"archon-{number}" for number in range(5, 13)]
    channels = [HaltChannelStub("database"), HaltChannelStub("file")]
    with running_server(orchestrator=AgentOrchestratorStub(hanging=hanging), channels=channels) as server:
        body = {"question": "Close it?", "answer": CHOICE, "agents": {"roster": "archons", "count": 12}}
        page = open_page(server, "/")
        server.post(body)
        wait_for_seats(page, "asked", list(range(4, 12)))
        assert server.ask("POST", "/v1/halt", {"reason": "a test of the halt"}).status == 200
        expect(page.locator("#decision-title")).to_contain_text("the system was halted")
        wait_for_seats(page, "halted", list(range(4, 12)))
        expect(page.locator("#minority-title")).to_have_text("The positions until then")


def test_after_the_server_was_killed_and_started_again_the_page_shows_the_exact_state(
    open_page: OpenPage, llm: LlmServer, tmp_path: Path
) -> None:
    llm.reset()
    llm.configure(faults=[{"fault": "hold", "contains": ["voice 4 ", "voice 5 "]}])
    port = free_port()
    with serving(llm, tmp_path, port=port) as (client, process):
        own = ask(client)
        page = open_page(client, f"/deliberations/{own}", allowed=("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED"))
        wait_for_seats(page, "asked", [4, 5])
        expect(page.locator("#stale")).to_be_hidden()
        process.kill()
        process.wait()
        expect(page.locator("#stale")).to_be_visible()
        expect(page.locator("#stale-since")).to_have_text(re.compile(r"at \d\d:\d\d:\d\d"))
        assert len(seats(page, "answered")) == AGENTS - 2
    llm.configure(faults=[])
    with serving(llm, tmp_path, port=port) as (client, _):
        expect(page.locator("#decision-title")).to_contain_text("Decision:", timeout=40_000)
        expect(page.locator("#stale")).to_be_hidden()
        document = client.ask("GET", f"/v1/deliberations/{own}").document
        shown = page.locator("#chamber").get_attribute("data-sequence")
        with client.events(f"/v1/deliberations/{own}/events") as stream:
            sequence = re.findall(rb"id: (\d+)", stream.read())[-1]
        assert (document["status"], shown) == ("completed", sequence.decode())
        assert page.locator('[data-bind="roll-answered"]').inner_text() == str(document["roll_call"]["answered"])


def test_a_page_that_slept_catches_up_as_soon_as_it_is_seen_again(open_page: OpenPage) -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        own = server.post({"question": "Close it?", "answer": CHOICE}).document["id"]
        page = open_page(server, f"/deliberations/{own}")
        wait_for_seats(page, "asked", list(range(72)))
        # What a frozen page misses: its stream is gone without a word, and an hour has passed.
        page.evaluate("""() => {
          const real = Date.now; const ahead = 3600000;
          Date.now = () => real() + ahead;
        }""")
        server.ask("POST", f"/v1/deliberations/{own}/cancel")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        expect(page.locator("#decision-title")).to_contain_text("cancelled")


def test_the_room_goes_on_to_the_next_deliberation_by_itself(open_page: OpenPage) -> None:
    hanging = [f"archon-{number}" for number in range(1, 73)]
    with running_server(orchestrator=AgentOrchestratorStub(hanging=hanging)) as server:
        server.post({"question": "The first?", "answer": CHOICE})
        page = open_page(server, "/")
        expect(page.locator("#question")).to_have_text("The first?")
        server.post({"question": "The second?", "answer": {"kind": "verdict"}, "agents": {"count": 3}})
        expect(page.locator("#question")).to_have_text("The second?")
        assert page.locator("[data-seat]").count() == 3
        assert page.title().startswith("The second?")


def test_text_from_agents_and_askers_is_shown_as_text(open_page: OpenPage, llm: LlmServer, tmp_path: Path) -> None:
    llm.reset()
    reply = '{"answer": "yes", "confidence": 0.5, "reasoning": "<img src=x onerror=alert(1)>\\u202eback"}'
    llm.configure(answers={"voice": reply})
    with serving(llm, tmp_path, port=free_port()) as (client, _):
        page = open_page(client, "/")
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        ask(client, question=HOSTILE, context=HOSTILE)
        expect(page.locator("#question")).to_contain_text("<img src=x onerror=alert(1)>\\u202e<script>")
        expect(page.locator("#winner")).to_contain_text("<img src=x onerror=alert(1)>\\u202eback")
        page.locator('[data-seat="0"]').click()
        expect(page.locator("#seat-panel")).to_contain_text("onerror=alert(1)>\\u202eback")
        assert page.locator("#content img, #content script, #seat-panel img").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_every_size_and_theme_is_free_of_barriers_and_never_scrolls_sideways(
    open_page: OpenPage, barriers: Callable[[Page], list[str]], width: int, dark: bool
) -> None:
    with running_server(orchestrator=AgentOrchestratorStub(failing=["archon-2"])) as server:
        own = server.post({"question": "Close it?" * 60, "answer": CHOICE}, query="?wait=20").document["id"]
        page = open_page(server, f"/deliberations/{own}?seat=2", width=width, dark=dark)
        expect(page.locator("#seat-panel")).to_contain_text("Persona")
        assert (barriers(page), scrolls_sideways(page)) == ([], False)
        page.keyboard.press("Escape")
        assert (barriers(page), scrolls_sideways(page)) == ([], False)


def test_it_can_be_read_without_scripts(open_page: OpenPage) -> None:
    with running_server() as server:
        server.post({"question": "Close it?", "answer": CHOICE}, query="?wait=20")
        page = open_page(server, "/", java_script_enabled=False)
        expect(page.locator("#decision-title")).to_contain_text("Decision:")
        page.locator('[data-seat="4"]').click()
        expect(page.locator("#seat-panel")).to_contain_text("archon-5")
