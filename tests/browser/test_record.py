"""The pages of the record in a real browser: pin a key, check checkpoint, entries and bundles, and find a server that lies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.watched_page import OpenPage, scrolls_sideways
from tests.conclave_fixture import RunningServer, running_server
from tests.witness_formats import LogKey

_QUESTION: dict[str, Any] = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "seed": 7,
}
_KEY_PLACE = "conclave.pinned-key"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        running.post(_QUESTION, query="?wait=30")
        yield running


@pytest.fixture(scope="module")
def deliberation(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.ask("GET", "/v1/deliberations").document["items"][-1]
    assert found["status"] == "completed"
    return found


@pytest.fixture(scope="module")
def vkey(server: RunningServer) -> str:
    return str(server.conclave.witness.verifier_key)


@pytest.fixture
def open_pinned(open_page: OpenPage, server: RunningServer, vkey: str) -> Callable[..., Page]:
    """A page of a browser in which the server's key is pinned."""

    def open_one(path: str, **options: Any) -> Page:
        kept = [{"name": _KEY_PLACE, "value": vkey}]
        origin = {"origin": f"http://127.0.0.1:{server.port}", "localStorage": kept}
        return open_page(server, path, storage_state={"cookies": [], "origins": [origin]}, **options)

    return open_one


def _outcome(page: Page, place: str) -> str:
    found = page.locator(f"#{place} p[data-result]")
    found.wait_for()
    return str(found.get_attribute("data-result"))


def test_a_key_is_pinned_by_keyboard_and_the_checkpoint_is_checked_with_it(
    server: RunningServer, open_page: OpenPage, vkey: str
) -> None:
    page = open_page(server, "/record")
    expect(page.locator("#pinned")).to_have_text("No key is pinned in this browser.")
    page.get_by_label("Key of the log").focus()
    page.keyboard.insert_text(f"  {vkey} ")
    page.keyboard.press("Enter")
    assert _outcome(page, "head-report") == "verified"
    expect(page.locator("#pinned")).to_contain_text(vkey)
    expect(page.locator("#announcements")).to_contain_text("Verified.")
    page.reload()
    assert _outcome(page, "head-report") == "verified"
    expect(page.locator("[data-step=consistency]")).to_contain_text("continues the checkpoint")


def test_the_servers_own_key_comes_with_a_warning_and_is_pinned_by_keyboard(
    server: RunningServer, open_page: OpenPage
) -> None:
    page = open_page(server, "/record")
    summary = page.get_by_text("The key that this server names")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("It proves nothing by itself.")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.locator("#take")).to_be_focused()
    page.keyboard.press("Enter")
    assert _outcome(page, "head-report") == "verified"


def test_a_key_that_is_none_is_refused_where_it_was_given(
    server: RunningServer, open_page: OpenPage, vkey: str
) -> None:
    page = open_page(server, "/record")
    field = page.get_by_label("Key of the log")
    name, key_id, key = vkey.split("+", 2)
    for wrong, why in (
        (f"{name}+00000000+{key}", "id is not the hash"),
        (f"{name}+{key_id}", "no NAME+ID+KEY"),
        ("\u202e+a+b", "not"),
    ):
        field.fill(wrong)
        page.get_by_role("button", name="Pin this key").click()
        expect(page.locator("#vkey-error")).to_contain_text(why)
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_be_focused()
    assert page.evaluate("localStorage.length") == 0


def test_another_key_than_the_servers_is_refused_and_can_be_forgotten(
    server: RunningServer, open_page: OpenPage
) -> None:
    page = open_page(server, "/record")
    page.get_by_label("Key of the log").fill(LogKey().vkey)
    page.get_by_role("button", name="Pin this key").click()
    assert _outcome(page, "head-report") == "refused"
    expect(page.locator("#pinned")).to_contain_text("expect a refusal")
    expect(page.locator("#alerts")).to_contain_text("Refused.")
    page.get_by_role("button", name="Forget the pinned key").click()
    expect(page.locator("#pinned")).to_have_text("No key is pinned in this browser.")
    assert page.evaluate("localStorage.length") == 0


def test_an_entry_is_verified_step_by_step_and_shown_from_its_checked_bytes(
    server: RunningServer, open_pinned: Callable[..., Page]
) -> None:
    page = open_pinned("/record/entries/90")
    assert _outcome(page, "entry-report") == "verified"
    names = page.locator("#entry-report li").evaluate_all("rows => rows.map((row) => row.dataset.step)")
    assert names == ["pinned key", "checkpoint", "consistency", "entry", "leaf hash", "inclusion proof"]
    served = server.ask("GET", "/v1/witness/entries/90").document
    expect(page.locator("#leaf")).to_have_text(served["leaf_hash"])
    expect(page.locator("#raw")).to_have_text(served["entry"])
    expect(page.locator("#shown-words")).to_contain_text("Written by this browser")
    assert json.loads(page.locator("#pretty").inner_text()) == json.loads(served["entry"])
    proof = server.ask(
        "GET", f"/v1/witness/proofs/inclusion?index=90&tree_size={server.conclave.witness.tree_size}"
    ).document
    assert page.locator("#path .other code").all_inner_texts() == proof["hashes"]
    expect(page.locator("#path .own code").first).to_have_text(served["leaf_hash"])
    expect(page.locator("#root")).to_have_text(proof["root_hash"])


def test_every_drawn_side_is_the_side_on_which_the_hash_stands(open_pinned: Callable[..., Page]) -> None:
    page = open_pinned("/record/entries/5")
    assert _outcome(page, "entry-report") == "verified"
    said = page.locator("#path .other span").all_inner_texts()
    assert said[:4] == ["left: entry 4", "right: entries 6 to 7", "left: entries 0 to 3", "right: entries 8 to 15"]


def test_texts_are_shown_once_they_open_their_commitments(open_pinned: Callable[..., Page]) -> None:
    page = open_pinned("/record/entries/0")
    assert _outcome(page, "entry-report") == "verified"
    assert _QUESTION["question"] not in page.locator("main").inner_text()
    page.get_by_role("button", name="Fetch the texts").click()
    expect(page.locator("#texts")).to_contain_text(_QUESTION["question"])
    expect(page.locator("#texts-words")).to_contain_text("are those that were committed to.")


def test_a_text_that_the_server_made_up_is_refused(open_pinned: Callable[..., Page]) -> None:
    page = open_pinned("/record/entries/90")
    assert _outcome(page, "entry-report") == "verified"

    def lie(route: Route) -> None:
        bundle = route.fetch().json()
        route.fulfill(json={**bundle, "disclosures": [{**each, "text": "made up"} for each in bundle["disclosures"]]})

    page.route("**/bundle", lie)
    page.get_by_role("button", name="Fetch the texts").click()
    expect(page.locator("#texts-words")).to_contain_text("0 of 2 texts")
    expect(page.locator("#texts")).not_to_contain_text("made up")


def test_a_page_with_another_entry_than_the_logs_is_refused(open_pinned: Callable[..., Page]) -> None:
    page = open_pinned("/record/entries/90")

    def lie(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace("&#34;answered&#34;", "&#34;abstained&#34;"))

    page.route("**/record/entries/90", lie)
    page.reload()
    assert _outcome(page, "entry-report") == "refused"
    expect(page.locator("#entry-report")).to_contain_text("another entry than the log has")
    expect(page.locator("#shown-words")).to_contain_text("not verified")


def test_a_server_that_goes_back_to_an_earlier_checkpoint_is_found(
    server: RunningServer, open_pinned: Callable[..., Page]
) -> None:
    before = server.ask("GET", "/v1/witness/checkpoint").body.decode()
    server.post({**_QUESTION, "agents": {"roster": "archons", "count": 3}}, query="?wait=30")
    page = open_pinned("/record")
    assert _outcome(page, "head-report") == "verified"
    page.route("**/v1/witness/checkpoint", lambda route: route.fulfill(body=before, content_type="text/plain"))
    page.get_by_role("button", name="Check now").click()
    expect(page.locator("#head-report")).to_contain_text("rolled back")
    assert _outcome(page, "head-report") == "refused"
    page.get_by_text("What this browser saw last").click()
    page.get_by_role("button", name="Forget what this browser saw").click()
    page.get_by_role("button", name="Check now").click()
    expect(page.locator("#head-report")).to_contain_text("The first checkpoint of this log")


def test_without_a_secure_context_the_pages_say_what_to_do(open_pinned: Callable[..., Page]) -> None:
    page = open_pinned("/record")
    # What a browser does on a page by plain http from elsewhere.
    page.add_init_script("Object.defineProperty(Crypto.prototype, 'subtle', {get: () => undefined})")
    for path, report in (("/record", "head-report"), ("/record/entries/3", "entry-report")):
        page.goto(f"{page.url.split('/record')[0]}{path}")
        expect(page.locator("#obstacle")).to_contain_text("over https, or on localhost")
        expect(page.locator(f"#{report}")).not_to_contain_text("Verified")
    page.goto(f"{page.url.split('/record')[0]}/record")
    page.get_by_role("button", name="Check now").click()
    assert _outcome(page, "head-report") == "unable"
    page.get_by_label("Key of the log").fill(LogKey().vkey)
    page.get_by_role("button", name="Pin this key").click()
    expect(page.locator("#vkey-error")).to_contain_text("over https, or on localhost")


def test_a_deliberation_is_followed_from_its_id_to_an_entry(
    server: RunningServer, open_pinned: Callable[..., Page], deliberation: dict[str, Any]
) -> None:
    page = open_pinned("/record")
    page.get_by_label("Index of an entry, or id of a deliberation").fill(deliberation["id"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Entries of a deliberation")).to_be_visible()
    first = deliberation["witness"]["first_index"]
    page.get_by_role("link", name=str(first), exact=True).click()
    assert _outcome(page, "entry-report") == "verified"
    expect(page.get_by_role("link", name="See it in the chamber")).to_have_attribute(
        "href", f"/deliberations/{deliberation['id']}"
    )


def test_a_seat_in_the_chamber_leads_to_its_verified_leaf(
    open_pinned: Callable[..., Page], deliberation: dict[str, Any]
) -> None:
    page = open_pinned(f"/deliberations/{deliberation['id']}")
    page.locator('[data-seat="6"]').click()
    page.locator('#seat-panel a[href^="/record/entries/"]').click()
    assert _outcome(page, "entry-report") == "verified"
    entry = json.loads(page.locator("#pretty").inner_text())
    assert (entry["type"], entry["agent_id"]) == ("agent.ended", "archon-7")


def test_a_bundle_is_checked_from_the_server_and_from_a_file(
    server: RunningServer, open_pinned: Callable[..., Page], deliberation: dict[str, Any], tmp_path: Path
) -> None:
    page = open_pinned("/record")
    page.get_by_label("Or a deliberation's id").fill(deliberation["id"])
    page.get_by_role("button", name="Fetch and check").click()
    assert _outcome(page, "bundle-report") == "verified in part"
    expect(page.locator("#bundle-report [data-step='roll call']")).to_contain_text("72 asked =")
    expect(page.locator("#bundle-report")).to_contain_text("not computed again")
    bundle = server.ask("GET", f"/v1/deliberations/{deliberation['id']}/bundle").document
    bundle["entries"][9]["entry"] = bundle["entries"][10]["entry"]
    tampered = tmp_path / "bundle.json"
    tampered.write_text(json.dumps(bundle), encoding="utf-8")
    page.get_by_label("A bundle's file").set_input_files(tampered)
    expect(page.locator("#bundle-report p[data-result]")).to_have_attribute("data-result", "refused")
    expect(page.locator("#bundle-report")).to_contain_text("the inclusion proof does not lead to the root")


def test_hostile_options_are_verified_and_shown_as_text(
    server: RunningServer, open_pinned: Callable[..., Page]
) -> None:
    options = [
        "<img src=x onerror=alert(1)>",
        "\u202egnp.exe",
        '"><script>alert(1)</script>',
        "\U0001f697 {{ 7 * 7 }} &amp; '",
    ]
    asked = {**_QUESTION, "answer": {"kind": "choice", "options": options}, "agents": {"roster": "archons", "count": 2}}
    first = server.post(asked, query="?wait=30").document["witness"]["first_index"]
    page = open_pinned(f"/record/entries/{first}")
    assert _outcome(page, "entry-report") == "verified"
    expect(page.locator("#shown-words")).to_contain_text("Written by this browser")
    shown = page.locator("#pretty").inner_text()
    for text in (options[0], r"\u202egnp.exe", r"\"><script>alert(1)</script>", options[3]):
        assert text in shown
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_pages_fit_every_width_and_theme_and_have_no_barriers(
    open_pinned: Callable[..., Page],
    barriers: Callable[[Page], list[str]],
    deliberation: dict[str, Any],
    width: int,
    dark: bool,
) -> None:
    page = open_pinned("/record", width=width, dark=dark)
    assert _outcome(page, "head-report") == "verified"
    page.get_by_label("Or a deliberation's id").fill(deliberation["id"])
    page.get_by_role("button", name="Fetch and check").click()
    assert _outcome(page, "bundle-report") == "verified in part"
    for summary in page.locator("summary").all():
        summary.click()
    assert not scrolls_sideways(page)
    assert barriers(page) == []
    page.goto(f"{page.url.split('/record')[0]}/record/entries/0")
    assert _outcome(page, "entry-report") == "verified"
    page.get_by_role("button", name="Fetch the texts").click()
    expect(page.locator("#texts-words")).not_to_be_empty()
    page.locator("summary").click()
    assert not scrolls_sideways(page)
    assert barriers(page) == []
