"""Searching over REST and on the command line: the same parameters, the same hits, and each bad value named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.command_line import Command, commands
from tests.conclave_fixture import RunningServer, running_server
from tests.integration.test_rest_hindsight import CHOICE, Panel, Speaker

KEYS = "ada:operator:secret-of-ada,bob:operator:secret-of-bob,root:admin:secret-of-root"


@pytest.fixture(scope="module")
def panel() -> Iterator[Panel]:
    """A server on which five questions were asked."""
    speaker = Speaker()
    with running_server(orchestrator=speaker) as server:
        asked = Panel(server, speaker)
        asked.ask(CHOICE, ["trams", "trams", "buses"], question="What first, 100% of it?")
        asked.ask(CHOICE, ["trams", "buses"], question="Ein Café für alle?", metadata={"origin": "petition"})
        asked.ask(
            {"kind": "verdict"}, ["yes", "yes", "no"], question="Shall it be debated?", rule={"kind": "plurality"}
        )
        asked.ask({"kind": "number", "unit": "km"}, [1234.5, 1234.5, 2], question="How far?")
        asked.ask(CHOICE, [None, None, None], question="And nobody?")
        yield asked


def questions(server: RunningServer, **query: str) -> list[str]:
    """What a search finds, newest first."""
    answered = server.ask("GET", f"/v1/deliberations?{urlencode(query)}")
    assert answered.status == 200, answered.document
    return [item["question"] for item in answered.document["items"]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"search": "100%"}, ["What first, 100% of it?"]),
        ({"search": "CAFE alle"}, ["Ein Café für alle?"]),
        ({"search": "1234.5"}, ["How far?"]),
        ({"search": "nothing of the kind"}, []),
        ({"search": "'; --"}, []),
        ({"answer": "verdict"}, ["Shall it be debated?"]),
        ({"rule": "median"}, ["How far?"]),
        ({"outcome": "tied"}, ["Ein Café für alle?"]),
        ({"outcome": "no_majority"}, ["And nobody?"]),
        ({"protocol": "debate"}, []),
        ({"simulated": "false"}, []),
        ({"simulated": "true", "answer": "number"}, ["How far?"]),
        ({"search": "alle", "origin": "petition", "status": "completed"}, ["Ein Café für alle?"]),
        ({"search": "alle", "origin": "scheduled"}, []),
        ({"to": "2000-01-01"}, []),
        ({"from": "2000-01-01", "search": "far"}, ["How far?"]),
        ({"search": "", "answer": "", "from": "", "simulated": "", "outcome": "no_majority"}, ["And nobody?"]),
    ],
)
def test_a_search_finds_what_matches_all_of_it(panel: Panel, query: dict[str, str], found: list[str]) -> None:
    assert questions(panel.server, **query) == found


def test_a_search_goes_on_by_its_cursor(panel: Panel) -> None:
    first = panel.server.ask("GET", "/v1/deliberations?search=trams&limit=2").document
    cursor = quote(first["next_cursor"])
    rest = panel.server.ask("GET", f"/v1/deliberations?search=trams&limit=2&cursor={cursor}").document
    assert [each["question"] for each in (*first["items"], *rest["items"])] == [
        "And nobody?",
        "Ein Café für alle?",
        "What first, 100% of it?",
    ]
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("search=" + "x" * 513, ["/query/search"]),
        ("search=" + "+".join(str(number) for number in range(33)), ["/query/search"]),
        ("answer=essay", ["/query/answer"]),
        ("protocol=duel&rule=dice", ["/query/protocol", "/query/rule"]),
        ("outcome=won", ["/query/outcome"]),
        ("simulated=perhaps", ["/query/simulated"]),
        ("from=yesterday&to=2026-02-30", ["/query/from", "/query/to"]),
        ("from=2026-02-02&to=2026-02-01", ["/query/to"]),
        ("search=trams&cursor=nonsense", ["/query/cursor"]),
        ("from=x&to=y&cursor=x", ["/query/from", "/query/to", "/query/cursor"]),
        (
            f"limit=0&status=x&from=x&search={'x' * 600}",
            ["/query/search", "/query/from", "/query/status", "/query/limit"],
        ),
        ("limit=0&search=" + "+".join(map(str, range(33))), ["/query/search", "/query/limit"]),
    ],
)
def test_each_value_that_cannot_be_is_named(panel: Panel, query: str, pointers: list[str]) -> None:
    refused = panel.server.ask("GET", f"/v1/deliberations?{query}")
    assert (refused.status, refused.problem) == (422, "invalid-request")
    assert [each["pointer"] for each in refused.document["errors"]] == pointers


@pytest.mark.parametrize(
    "text", ["%00", "%ED%A0%80", "%F0%9F%8F%B3", "%", "_", "%2A%5B%3F%5D", "%E2%80%AE", "\\", "%25_%25"]
)
def test_no_search_text_breaks_the_server(panel: Panel, text: str) -> None:
    assert panel.server.ask("GET", f"/v1/deliberations?search={text}").status in {200, 422}


def test_a_caller_finds_what_its_own_key_asked_and_an_admin_everything() -> None:
    with running_server(keys=KEYS) as server:
        for name in ("ada", "bob"):
            body = {"question": f"Trams for {name}?", "agents": {"count": 1}}
            server.post(body, query="?wait=30", headers={"Authorization": f"Bearer secret-of-{name}"})

        def found(name: str, text: str) -> list[str]:
            headers = {"Authorization": f"Bearer secret-of-{name}"}
            page = server.ask("GET", f"/v1/deliberations?search={text}", headers=headers).document
            return [each["question"] for each in page["items"]]

        assert found("ada", "trams") == ["Trams for ada?"]
        assert found("ada", "bob") == []
        assert found("root", "trams") == ["Trams for bob?", "Trams for ada?"]


def test_the_parameters_are_described(panel: Panel) -> None:
    document = panel.server.ask("GET", "/openapi.json").document
    described = {each["name"]: each for each in document["paths"]["/v1/deliberations"]["get"]["parameters"]}
    wanted = {"search", "answer", "protocol", "rule", "outcome", "simulated", "from", "to"}
    assert wanted <= set(described)
    assert all(each["in"] == "query" and each["description"] and not each["required"] for each in described.values())
    assert "OutcomeStatus" in json.dumps(described["outcome"]["schema"])
    assert document["components"]["schemas"]["OutcomeStatus"]["enum"] == ["decided", "tied", "no_majority"]


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def listed(conclave: Command, *options: str) -> list[Any]:
    """The questions that `conclave list` finds."""
    ran = conclave("list", *options, "--json")
    assert ran.code == 0, ran.stderr
    return [item["question"] for item in ran.document["items"]]


def test_the_command_line_searches_here_and_on_a_server_alike(conclave: Command) -> None:
    with running_server() as server:
        for at in ((), ("--server", f"http://127.0.0.1:{server.port}")):
            for question in ("Trams or buses?", "A café?"):
                options = ("--option", "trams", "--option", "buses", "--agents", "3")
                assert conclave("deliberate", question, *options, *at, "--json").code in {0, 1}
            assert listed(conclave, "--search", "CAFE", *at) == ["A café?"]
            assert listed(conclave, "--search", "trams", "--answer", "choice", *at) == ["A café?", "Trams or buses?"]
            assert listed(conclave, "--search", "or buses?", "--rule", "plurality", "--simulated", *at) == [
                "Trams or buses?"
            ]
            assert listed(conclave, "--not-simulated", *at) == listed(conclave, "--to", "2000-01-01", *at) == []
            refused = conclave("list", "--outcome", "won", "--from", "never", *at)
            assert (refused.code, "--outcome" in refused.stderr) == (2, True)
            refused = conclave("list", "--from", "never", *at)
            assert (refused.code, "--from" in refused.stderr) == (2, True)
