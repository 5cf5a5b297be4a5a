"""A ranking of texts shows the words behind every label, those that lost and those that nobody wanted among them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from api.cli.rendering import render_deliberation
from tests.conclave_fixture import RunningServer, running_server
from tests.html_reader import HtmlReader

QUESTION = {
    "question": "What should the city promise?",
    "answer": {"kind": "text"},
    "protocol": {"kind": "common_ground"},
    "agents": {"roster": "archons", "count": 8},
    "seed": 7,
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as found:
        yield found


@pytest.fixture(scope="module")
def document(server: RunningServer) -> dict[str, Any]:
    found: dict[str, Any] = server.post(QUESTION, query="?wait=60").document
    assert found["status"] == "completed", found
    return found


def test_the_document_has_the_text_of_every_label_of_the_tally(document: dict[str, Any]) -> None:
    statements = {each["label"]: each for each in document["statements"]}
    assert set(document["outcome"]["tally"]) == set(statements)
    assert len(statements) > 2
    assert all(each["text"] and each["agent_id"] and each["round"] > 0 for each in statements.values())
    if document["statement"] is not None:
        assert document["statement"] == statements[document["statement"]["label"]]


@pytest.mark.parametrize("path", ["/deliberations/{}", "/archive/compare?a={}", "/v1/deliberations/{}/report"])
def test_every_page_shows_the_words_of_each_statement_beside_its_label(
    server: RunningServer, document: dict[str, Any], path: str
) -> None:
    page = server.ask("GET", path.format(document["id"]), headers={"Accept": "text/html"}).body.decode()
    words = HtmlReader(page).words
    decision = document["outcome"]["decision"]
    for each in document["statements"]:
        text, label, by = re.escape(" ".join(each["text"].split())), each["label"], each["agent_id"]
        told = rf"{label}: (\d+ agents?( archon-[^:]*?)?|first for nobody) {text} drafted by {by}\b"
        if label == decision:
            # It stands with the outcome, which names it once.
            told += rf"|{text} drafted by {by}\b"
        assert re.search(rf"{told}|{label}, drafted by {by}: {text}", words), (label, words)


def test_the_terminal_shows_the_words_of_every_position(server: RunningServer, document: dict[str, Any]) -> None:
    outputs = server.ask("GET", f"/v1/deliberations/{document['id']}/outputs").document["items"]
    written = io.StringIO()
    render_deliberation(Console(file=written, width=200), document, outputs=outputs, again="conclave show")
    told = " ".join(written.getvalue().split())
    held = {each["answer"] for each in document["outcome"]["dissent"]["positions"]}
    assert held
    for each in document["statements"]:
        if each["label"] in held:
            assert f'"{" ".join(each["text"].split())}" [{each["agent_id"]}]' in told


def test_a_page_of_the_list_has_no_rounds_and_no_statements(server: RunningServer, document: dict[str, Any]) -> None:
    items = server.ask("GET", "/v1/deliberations").document["items"]
    assert [each["statements"] for each in items if each["id"] == document["id"]] == [[]]


def test_another_protocol_has_no_statements(server: RunningServer) -> None:
    answered = server.post({"question": "Yes?", "agents": {"count": 3}}, query="?wait=30").document
    assert answered["statements"] == []
