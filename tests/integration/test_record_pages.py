"""The pages of the record as the server gives them: who may look, what a list holds, and that no text of a deliberation is in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from application.services.log_check import unverified
from domain.errors.witness import VerificationRefusedError
from infrastructure.witness.file_anchor import FileAnchor
from tests.conclave_fixture import RunningServer, running_server
from tests.html_reader import HtmlReader

KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,bea:operator:bea-secret-1,root:admin:root-secret-1"
QUESTION: dict[str, Any] = {
    "question": "Should the harbour bridge be painted violet?",
    "context": "A context that nobody else may read.",
    "answer": {"kind": "choice", "options": ["yes", "no"]},
    "agents": {
        "members": [{"id": f"painter-{number}", "persona": f"A persona like none, {number}."} for number in range(20)]
    },
    "seed": 7,
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


@pytest.fixture(scope="module")
def deliberation(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.post(QUESTION, query="?wait=30", headers=key("bob")).document
    assert found["status"] == "completed"
    return found


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1", "Accept": "text/html"}


def page_of(server: RunningServer, path: str, name: str = "bob") -> HtmlReader:
    answer = server.ask("GET", path, headers=key(name))
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    return HtmlReader(answer.body.decode())


def links_of(page: HtmlReader) -> list[str]:
    return [str(each.get("href")) for each in page.all("a")]


def entries_in(page: HtmlReader) -> list[int]:
    return [int(link.rpartition("/")[2]) for link in links_of(page) if link.startswith("/record/entries/")]


@pytest.mark.parametrize("path", ["/record", "/record/entries/0"])
def test_without_a_session_the_pages_lead_to_the_sign_in(server: RunningServer, path: str) -> None:
    answer = server.ask("GET", path, headers={"Accept": "text/html"})
    assert answer.status == 303
    assert answer.headers["location"].startswith("/sign-in?next=/record")


def test_the_page_shows_the_checkpoint_and_the_key_of_the_log(
    server: RunningServer, deliberation: dict[str, Any]
) -> None:
    words = page_of(server, "/record", "ann").words
    origin, size, _ = server.ask("GET", "/v1/witness/checkpoint").body.decode().split("\n")[:3]
    assert f"Log {origin} Entries {size} Root hash {deliberation['witness']['root_hash']}" in words
    assert str(server.conclave.witness.verifier_key) in words


def test_no_text_of_a_deliberation_is_in_the_record(server: RunningServer, deliberation: dict[str, Any]) -> None:
    texts = [QUESTION["question"], QUESTION["context"], *(each["persona"] for each in QUESTION["agents"]["members"])]
    outputs = server.ask("GET", f"/v1/deliberations/{deliberation['id']}/outputs", headers=key("bob")).document["items"]
    texts += [output[field] for output in outputs for field in ("content", "reasoning") if output[field]]
    last = deliberation["witness"]["last_index"]
    paths = [
        "/record",
        f"/record?find={deliberation['id']}",
        *(f"/record/entries/{index}" for index in range(last + 1)),
    ]
    for path in paths:
        body = server.ask("GET", path, headers=key("bob")).body.decode()
        assert [text for text in texts if text in body] == []


def test_the_latest_entries_come_first_and_older_ones_page_by_page(
    server: RunningServer, deliberation: dict[str, Any]
) -> None:
    path, found = "/record", list[int]()
    while path:
        page = page_of(server, path)
        found += entries_in(page)
        path = next(
            (link for link in links_of(page) if link.startswith("/record?before=") and int(link[15:]) < found[-1] + 1),
            "",
        )
    assert found == list(range(server.conclave.witness.tree_size))[::-1]
    assert deliberation["witness"]["last_index"] in found


def test_a_deliberation_is_found_by_its_id_first_entry_first(
    server: RunningServer, deliberation: dict[str, Any]
) -> None:
    where = f"/record?find={deliberation['id']}"
    page = page_of(server, where)
    first = deliberation["witness"]["first_index"]
    assert entries_in(page) == list(range(first, first + 20))
    following = page_of(server, f"{where}&after=20")
    assert entries_in(following)[0] == first + 20
    assert f"{where}&after=0" in links_of(following)


def test_an_index_that_is_looked_for_leads_to_its_entry(server: RunningServer) -> None:
    answer = server.ask("GET", "/record?find=007", headers=key("bob"))
    assert (answer.status, answer.headers["location"]) == (303, "/record/entries/7")


@pytest.mark.parametrize("wanted", ["nobody", "%00", "-1", "1e9", "%3Cscript%3E", "x" * 300, "%E2%80%AEabc"])
def test_what_cannot_be_found_is_said(server: RunningServer, wanted: str) -> None:
    page = page_of(server, f"/record?find={wanted}")
    assert "No entry belongs to that." in page.words
    assert entries_in(page) == []


@pytest.mark.parametrize("odd", ["before=-1", "before=x", "before=99999999999999999999", "before=0", "after=7"])
def test_an_odd_place_in_the_list_breaks_nothing(server: RunningServer, odd: str) -> None:
    page_of(server, f"/record?{odd}")


@pytest.mark.parametrize("index", ["999999", "-1", "x", "%00", "1.0", "9" * 40])
def test_an_entry_that_there_is_not_is_not_found(server: RunningServer, index: str) -> None:
    answer = server.ask("GET", f"/record/entries/{index}", headers=key("bob"))
    assert answer.status == 404
    assert "The record has no entry" in HtmlReader(answer.body.decode()).words


def test_every_entry_has_a_page_with_the_path_from_its_leaf_to_the_root(
    server: RunningServer, deliberation: dict[str, Any]
) -> None:
    size = server.conclave.witness.tree_size
    for index in (0, 1, deliberation["witness"]["last_index"]):
        words = page_of(server, f"/record/entries/{index}").words
        proof = server.ask("GET", f"/v1/witness/proofs/inclusion?index={index}&tree_size={size}").document
        places = [words.index(each) for each in (proof["leaf_hash"], *proof["hashes"], proof["root_hash"])]
        assert places == sorted(places)


def test_only_who_sees_a_deliberation_is_led_to_it(server: RunningServer, deliberation: dict[str, Any]) -> None:
    path, chamber = f"/record/entries/{deliberation['witness']['first_index']}", f"/deliberations/{deliberation['id']}"
    assert chamber in links_of(page_of(server, path, "bob"))
    assert chamber in links_of(page_of(server, path, "root"))
    assert chamber not in links_of(page_of(server, path, "bea"))


def test_an_empty_record_says_what_to_do() -> None:
    with running_server() as running:
        page = page_of(running, "/record")
    assert "The record is empty. Ask something" in page.words


def test_anchors_are_shown_to_everybody_and_where_they_are_to_admins(tmp_path: Path) -> None:
    with running_server(keys=KEYS) as running:
        assert "No anchors: nobody else keeps checkpoints" in page_of(running, "/record").words
        running.post(QUESTION, query="?wait=30", headers=key("bob"))
        witness = running.conclave.witness
        witness._anchorage.anchors = (FileAnchor(tmp_path / "anchor"), FileAnchor(tmp_path))
        running.call(witness.publish())
        plain, full = (page_of(running, "/record", name).words for name in ("ann", "root"))
        size = witness.tree_size
    assert f"a file holds {size}" in plain
    assert "a file fails not known not since the start" in plain
    assert str(tmp_path) not in plain
    assert f"a file file:{tmp_path / 'anchor'} holds {size}" in full
    assert "fails the anchor" in full


def test_a_record_that_does_not_verify_says_so_and_still_shows_its_entries() -> None:
    with running_server() as running:
        running.post(QUESTION, query="?wait=30")
        running.conclave.witness.problem = unverified(VerificationRefusedError("the anchor at a secret place differs"))
        words = page_of(running, "/record").words
        entry = page_of(running, "/record/entries/3").words
    assert "Damaged. The record does not verify" in words
    assert "secret place" not in words
    assert "No checkpoint covers this entry yet." in entry


def test_markup_and_unseen_characters_in_an_entry_are_text(server: RunningServer) -> None:
    options = ["<img src=x onerror=alert(1)>", "\u202egnp.exe", '"><script>alert(1)</script>', "{{ 7 * 7 }}"]
    asked = {**QUESTION, "answer": {"kind": "choice", "options": options}}
    found = server.post(asked, query="?wait=30", headers=key("bob")).document
    answer = server.ask("GET", f"/record/entries/{found['witness']['first_index']}", headers=key("bob"))
    page = HtmlReader(answer.body.decode())
    assert "<img src=x onerror=alert(1)>" in page.words
    assert "{{ 7 * 7 }}" in page.words
    assert "\\u202egnp.exe" in page.words
    assert "\u202e" not in page.words
    assert [each.get("src") for each in page.all("img")] == ["/static/icon.svg"]
    assert all(str(each.get("src")).startswith("/static/") for each in page.all("script"))
    served = server.ask("GET", f"/v1/witness/entries/{found['witness']['first_index']}").document
    assert served["entry"] in [each.get("data-text") for each in page.all("section")]
