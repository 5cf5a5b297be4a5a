"""Reports over REST and on the command line: who may see them, what may run in them, and a file that is whole or not there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.report.page import report_of
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.witness import LogUnverifiedError
from tests.command_line import Command, commands
from tests.conclave_fixture import RunningServer, running_server
from tests.html_reader import HtmlReader
from tests.report_specimens import HOSTILE

KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,bea:operator:bea-secret-1,root:admin:root-secret-1"
QUESTION = {
    "question": "Should the city centre be closed to private cars?",
    "answer": {"kind": "choice", "options": ["yes", "no", "weekends only"]},
    "seed": 7,
}


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1"}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(keys=KEYS) as running:
        yield running


@pytest.fixture(scope="module")
def asked(server: RunningServer) -> dict[str, Any]:
    """A deliberation of bob's."""
    document: dict[str, Any] = server.post(QUESTION, query="?wait=30", headers=key("bob")).document
    assert document["status"] == "completed"
    return document


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def test_a_report_is_a_page_whose_header_allows_its_own_style_alone(
    server: RunningServer, asked: dict[str, Any]
) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{asked['id']}/report", headers=key("bob"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert policy == report_of({}).policy
    assert "unsafe" not in policy
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; img-src data:; base-uri 'none'; form-action 'none'; "
        r"frame-ancestors 'none'",
        policy,
    )


def test_a_report_shows_all_seventy_two_with_the_checkpoint_of_now(
    server: RunningServer, asked: dict[str, Any]
) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{asked['id']}/report", headers=key("bob"))
    found = HtmlReader(answer.body.decode())
    assert found.words.startswith(f"Conclave: Simulated: {QUESTION['question']} Simulated: no model was asked")
    assert any(str(each.get("aria-label")).startswith("72 seats.") for each in found.all("svg"))
    assert f"Decision: {asked['outcome']['decision']}" in found.words
    assert asked["witness"]["root_hash"] in found.words
    note = server.ask("GET", "/v1/witness/checkpoint").body.decode()
    assert " ".join(note.split()) in found.words


def test_only_who_sees_a_deliberation_sees_its_report(server: RunningServer, asked: dict[str, Any]) -> None:
    path = f"/v1/deliberations/{asked['id']}/report"
    seen = {name: server.ask("GET", path, headers=key(name)).status for name in ("bob", "bea", "ann", "root")}
    assert seen == {"bob": 200, "bea": 404, "ann": 404, "root": 200}
    assert server.ask("GET", path).problem == "unauthenticated"


@pytest.mark.parametrize("name", ["00000000-0000-4000-8000-000000000000", "%00", "..%2f..", "<script>"])
def test_a_report_of_nothing_is_a_problem_and_no_page(server: RunningServer, name: str) -> None:
    answer = server.ask(
        "GET", f"/v1/deliberations/{name.replace('<', '%3C').replace('>', '%3E')}/report", headers=key("root")
    )
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"


class Hostile:
    """Answers with markup and turned text for reasons."""

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """One ballot."""
        said = json.dumps({"answer": "yes", "reasoning": HOSTILE})
        return AgentOutput(request.agent_id, request.request_id, said, model=HOSTILE)


def test_what_a_hostile_agent_says_is_text_in_the_report() -> None:
    with running_server(orchestrator=Hostile()) as hostile:
        found = hostile.post(
            {**QUESTION, "context": HOSTILE, "agents": {"roster": "archons", "count": 3}}, query="?wait=30"
        )
        page = hostile.ask("GET", f"/v1/deliberations/{found.document['id']}/report").body.decode()
    assert "<script" not in page
    assert "<img" not in page
    assert not set(page) & set("\u202e\x1b\u2066")
    assert "<script>alert(1)</script>" in HtmlReader(page).words


def test_a_log_that_does_not_verify_still_has_reports_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as broken:
        found = broken.post({**QUESTION, "agents": {"roster": "archons", "count": 3}}, query="?wait=30").document

        async def refuse() -> str:
            raise LogUnverifiedError(problem="leaf 3 is missing", remedy="Restore it.")

        monkeypatch.setattr(broken.conclave.witness, "checkpoint", refuse)
        answer = broken.ask("GET", f"/v1/deliberations/{found['id']}/report")
    assert answer.status == 200
    assert (
        "no checkpoint is signed: the witness log does not verify: leaf 3 is missing"
        in HtmlReader(answer.body.decode()).words
    )


def test_the_command_line_writes_a_report_that_nobody_else_reads(conclave: Command, tmp_path: Path) -> None:
    found = conclave("deliberate", "Why?", "--agents", "5", "--json").document
    file = tmp_path / "report.html"
    ran = conclave("show", found["id"][:8], "--html", str(file))
    assert (ran.code, ran.stderr) == (0, "")
    assert f"the report of {found['id']}, {file.stat().st_size:,} bytes" in ran.words
    assert file.stat().st_mode & 0o077 == 0
    told = HtmlReader(file.read_text(encoding="utf-8")).words
    assert told.startswith("Conclave: Simulated: Why?")
    assert "Signed checkpoint of the log" in told
    assert f"SERVER/v1/deliberations/{found['id']}/bundle" in told


def test_with_json_the_document_is_printed_and_the_report_written(conclave: Command, tmp_path: Path) -> None:
    found = conclave("deliberate", "Why?", "--agents", "3", "--json").document
    ran = conclave("show", found["id"], "--html", str(tmp_path / "report.html"), "--json")
    assert ran.document == found
    assert (tmp_path / "report.html").exists()


def test_a_report_replaces_the_one_before_and_leaves_nothing_beside_it(conclave: Command, tmp_path: Path) -> None:
    found = conclave("deliberate", "Why?", "--agents", "3", "--json").document
    folder = tmp_path / "reports"
    folder.mkdir()
    file = folder / "report.html"
    file.write_text("the one before")
    assert conclave("show", found["id"], "--html", str(file)).code == 0
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [each.name for each in folder.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_written_is_an_error_of_usage(conclave: Command, tmp_path: Path) -> None:
    found = conclave("deliberate", "Why?", "--agents", "3", "--json").document
    for place in (tmp_path, tmp_path / "nowhere" / "report.html"):
        ran = conclave("show", found["id"], "--html", str(place))
        assert (ran.code, ran.stdout) == (2, "")
        assert str(place) in ran.stderr


def test_a_report_of_nothing_writes_nothing(conclave: Command, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert conclave("show", "00000000-0000-4000-8000-000000000000", "--html", str(file)).code == 2
    assert not file.exists()


def test_a_report_of_a_deliberation_on_a_server_is_made_here(
    server: RunningServer, asked: dict[str, Any], conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_API_KEY", "bob-secret-1")
    file = tmp_path / "report.html"
    url = f"http://127.0.0.1:{server.port}"
    assert conclave("show", asked["id"], "--server", url, "--html", str(file)).code == 0
    written = file.read_text(encoding="utf-8")
    served = server.ask("GET", f"/v1/deliberations/{asked['id']}/report", headers=key("bob")).body.decode()
    # But for where the bundle is.
    assert written.replace(f"{url}/v1/", "SERVER/v1/") == served


def test_a_server_that_is_away_is_a_dependency(conclave: Command, tmp_path: Path) -> None:
    ran = conclave("show", "0" * 36, "--server", "http://127.0.0.1:1", "--html", str(tmp_path / "report.html"))
    assert ran.code == 4
