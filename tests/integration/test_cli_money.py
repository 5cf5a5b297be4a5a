"""`conclave quote` and `conclave usage`, here and with a server: what they print, and that they spend nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infrastructure.stubs.in_memory_usage_reader import InMemoryUsageReader, SpentCall
from tests.command_line import Command, commands
from tests.conclave_fixture import running_server
from tests.unit.api.cli.scripted_server import answer, scripted_server


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def test_a_quote_takes_the_options_of_deliberate_and_asks_nobody(conclave: Command) -> None:
    options = ("--option", "yes", "--option", "no", "--agents", "3", "--max-attempts", "4", "--rule", "plurality")
    code, out, _ = conclave("quote", "Shall we?", *options, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["calls"] == {"expected": 3, "at_most": 12}
    assert document["cost_usd"] == {"expected": 0.0, "at_most": 0.0}
    code, out, _ = conclave("list", "--json")
    assert (code, json.loads(out)["items"]) == (0, [])


def test_a_quote_for_a_person_has_columns(conclave: Command) -> None:
    code, out, _ = conclave("quote", "Shall we?", "--agents", "3")
    assert code == 0
    assert out.splitlines()[1].split() == ["Calls", "3", "6"]
    assert "nothing was spent" in out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("quote", "Shall we?", "--agents", "73"), "--agents"),
        (("quote", "Shall we?", "--answer", "wish"), "--answer"),
        (("quote", "Shall we?", "--max-cost", "nan"), "finite"),
        (("quote",), "QUESTION"),
        (("usage", "--by", "agent"), "--by"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_the_name_of_its_option(
    conclave: Command, arguments: tuple[str, ...], named: str
) -> None:
    code, out, err = conclave(*arguments)
    assert (code, out) == (2, "")
    assert named in err


def test_quote_and_deliberate_have_the_same_options(conclave: Command) -> None:
    options = [
        {word for word in conclave(command, "--help")[1].split() if word.startswith("--")}
        for command in ("quote", "deliberate")
    ]
    assert options[0] == options[1]


def test_usage_after_a_deliberation_counts_its_calls(conclave: Command) -> None:
    code, out, _ = conclave("deliberate", "Shall we?", "--agents", "3", "--json")
    assert code == 0
    deliberation = json.loads(out)
    for by in ("deliberation", "key", "provider", "model", "day"):
        code, out, _ = conclave("usage", "--by", by, "--json")
        (item,) = json.loads(out)["items"]
        assert (code, item["calls"], item["cost_usd"]) == (0, deliberation["usage"]["calls"], 0.0)
    code, out, _ = conclave("usage")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == [deliberation["id"], "3"]


def test_a_server_is_asked_with_the_key(conclave: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted: dict[str, Any] = {"calls": {"expected": 1, "at_most": 2}, "tokens": {}, "cost_usd": {}, "notices": []}
    with scripted_server(answer(quoted), answer({"items": []})) as server:
        monkeypatch.setenv("CONCLAVE_API_KEY", "secret-1")
        assert conclave("quote", "Shall we?", "--agents", "1", "--server", server.url, "--json")[0] == 0
        assert conclave("usage", "--by", "day", "--server", server.url)[1] == "No call was made yet.\n"
    first, second = server.asked
    assert (first.method, first.path) == ("POST", "/v1/quotes")
    assert first.document == {"question": "Shall we?", "answer": {"kind": "verdict"}, "agents": {"count": 1}}
    assert (second.method, second.path) == ("GET", "/v1/usage?by=day")
    assert {asked.headers["Authorization"] for asked in server.asked} == {"Bearer secret-1"}


@pytest.mark.parametrize("command", [("quote", "Shall we?"), ("usage",)])
@pytest.mark.parametrize("foreign", [{}, {"items": [1]}, {"calls": 1, "items": {}}])
def test_whoever_does_not_answer_as_conclave_does_is_named(
    conclave: Command, command: tuple[str, ...], foreign: dict[str, Any]
) -> None:
    with scripted_server(answer(foreign)) as server:
        code, out, err = conclave(*command, "--server", server.url)
    assert (code, out) == (4, "")
    assert "does not answer as Conclave does" in err


def test_a_real_server_says_the_same(conclave: Command) -> None:
    spent = SpentCall("d-1", 1, None, "openai/small", "2026-11-21", 10, 10**12, input_tokens=0)
    with running_server(usage=InMemoryUsageReader(lambda: [spent])) as server:
        url = f"http://127.0.0.1:{server.port}"
        code, out, _ = conclave("quote", "Shall we?", "--agents", "2", "--server", url, "--json")
        assert (code, json.loads(out)["calls"]) == (0, {"expected": 2, "at_most": 4})
        code, out, _ = conclave("usage", "--by", "provider", "--server", url)
        assert code == 0
        assert out.splitlines()[1].split() == ["openai", "1", "0", "0", "0.0000", "USD", "1.0000", "USD"]
