"""What results are worth, from the question to the document: over REST, on the command line, and in the metrics."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services import deliberation_run
from domain.analysis.decision import decide
from domain.errors.agent import AgentInvocationError
from domain.models.control import control_id
from tests.command_line import Command, commands
from tests.conclave_fixture import RunningServer, running_server
from tests.patience import eventually

_VERDICT = {"kind": "verdict"}


class Jury:
    """Jurors who are right with probability 0.7, any two of them with the same correlation; those of the model `slow` never answer."""

    def __init__(self, correlation: float = 0.5) -> None:
        self._weight = 1 / correlation - 1

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The verdict of a juror on a question, the same whenever it is asked."""
        if request.model == "slow":
            raise AgentInvocationError(agent_id=request.agent_id, kind="server_error", message="it is away")
        topic = request.context.topic_content
        share = random.Random(topic).betavariate(0.7 * self._weight, 0.3 * self._weight)
        is_right = random.Random(f"{topic} {request.agent_id}").random() < share
        said = {"answer": "yes" if is_right or topic == "Plain?" else "no", "reasoning": f"I am {request.agent_id}."}
        return AgentOutput(request.agent_id, request.request_id, json.dumps(said))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(orchestrator=Jury()) as running:
        yield running


def members(count: int, *, models: tuple[str, ...] = ("fast",)) -> dict[str, Any]:
    """So many agents, their models in turn."""
    return {
        "members": [
            {"id": f"juror-{number}", "persona": f"Juror {number}.", "model": models[number % len(models)]}
            for number in range(count)
        ]
    }


def ask(server: RunningServer, question: str, **more: Any) -> dict[str, Any]:
    """The deliberation as it ended."""
    body = {"question": question, "answer": _VERDICT, "limits": {"max_attempts": 1}, **more}
    answer = server.post(body, query="?wait=30")
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.document
    return document


def test_sixty_questions_give_a_number_of_effective_votes(server: RunningServer) -> None:
    for number in range(60):
        last = ask(server, f"Question {number}?", agents=members(24))
    measured = last["worth"]["effective_votes"]["across"]
    assert measured["questions"] == 59
    assert measured["low"] <= 24 / (1 + 23 * 0.5) <= measured["high"]
    assert last["outcome"]["effective_votes"] == pytest.approx(24 / (1 + 23 * 0.5), rel=0.35)
    again = server.ask("GET", f"/v1/deliberations/{last['id']}").document
    assert again["worth"] == last["worth"]


def test_a_first_question_gives_bounds_and_no_number() -> None:
    with running_server(orchestrator=Jury()) as fresh:
        found = ask(fresh, "Alone?", agents=members(5))
    assert found["outcome"]["effective_votes"] is None
    assert found["worth"]["effective_votes"]["across"] is None
    assert found["worth"]["effective_votes"]["within"]["high"] == 5


def test_drop_out_of_a_model_is_warned_of_over_rest(server: RunningServer) -> None:
    found = ask(server, "Who is missing?", agents=members(24, models=("slow", "fast", "fast")))
    assert found["worth"]["warnings"][0] == "Degraded: 8 of 24 did not take part."
    assert found["worth"]["warnings"][1].startswith("Drop-out is not random: 8 of 8 agents of the model 'slow'")


def test_what_is_dear_to_count_is_counted_beside_the_event_loop(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_on: list[str] = []

    def watched(*arguments: Any, **more: Any) -> Any:
        counted_on.append(threading.current_thread().name)
        return decide(*arguments, **more)

    monkeypatch.setattr(deliberation_run, "decide", watched)
    ask(server, "Cheap?", agents=members(24))
    ask(server, "Dear?", agents=members(24), answer={"kind": "score", "min": 0, "max": 10})
    cheap, dear = counted_on
    assert cheap == "rest-server"
    assert dear != cheap


def test_a_page_of_deliberations_shows_no_worth(server: RunningServer) -> None:
    ask(server, "A page?", agents=members(3))
    assert {item["worth"] for item in server.ask("GET", "/v1/deliberations").document["items"]} == {None}


def test_ten_deliberations_in_agreement_count_in_the_metrics() -> None:
    with running_server(orchestrator=Jury()) as fresh:
        for _ in range(9):
            ask(fresh, "Plain?", agents=members(5))
        assert "conclave_groupthink_warnings_total 0.0" in fresh.ask("GET", "/metrics").body.decode()
        tenth = ask(fresh, "Plain?", agents=members(5))
        assert tenth["worth"]["agreement"]["sustained"] is True
        assert "conclave_groupthink_warnings_total 1.0" in fresh.ask("GET", "/metrics").body.decode()


def test_a_control_is_a_deliberation_of_its_own_and_shown_beside(server: RunningServer) -> None:
    found = ask(
        server, "Alone or together?", agents=members(6), control={"model": "fast"}, metadata={"origin": "petition"}
    )

    def shown() -> dict[str, Any]:
        document: dict[str, Any] = server.ask("GET", f"/v1/deliberations/{found['id']}").document
        return document

    eventually(lambda: shown()["control"]["status"] == "completed")
    control = shown()["control"]
    assert control["deliberation_id"] == control_id(found["id"])
    assert (control["model"], control["asked"], sum(control["tally"].values())) == ("fast", 6, 6)
    companion = server.ask("GET", f"/v1/deliberations/{control['deliberation_id']}").document
    assert (companion["metadata"], companion["origin"]) == ({"control_of": found["id"]}, "petition")
    assert companion["witness"]["last_index"] > companion["witness"]["first_index"]
    assert (companion["question"], companion["rule"]) == (found["question"], found["rule"])


def test_without_a_control_none_is_shown(server: RunningServer) -> None:
    assert ask(server, "No control?", agents=members(2))["control"] is None


def test_a_control_by_no_model_is_refused(server: RunningServer) -> None:
    answer = server.post({"question": "Which?", "control": {"model": ""}})
    assert (answer.status, answer.document["errors"][0]["pointer"]) == (422, "/control/model")


def test_that_there_is_a_control_stands_in_the_log(server: RunningServer) -> None:
    found = ask(server, "Witnessed?", agents=members(2), control={})
    entry = server.ask("GET", f"/v1/witness/entries/{found['witness']['first_index']}").document["entry"]
    assert json.loads(entry)["control"] == {"model": None}


@pytest.fixture
def conclave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def test_the_command_line_waits_for_the_control_and_shows_both(conclave: Command) -> None:
    ran = conclave("deliberate", "Both?", "--agents", "4", "--control", "default")
    assert ran.code == 0
    assert "Control: the default model asked alone 4 times" in ran.words
    assert "Effective votes: not known" in ran.words


def test_what_is_shown_later_is_what_was_printed_first(conclave: Command) -> None:
    first = conclave("deliberate", "Later?", "--agents", "4", "--control", "default", "--json").document
    conclave("deliberate", "In between?", "--agents", "4", "--json")
    assert first["control"]["status"] == "completed"
    assert conclave("show", first["id"], "--json").document == first


def test_a_deliberation_with_a_control_verifies_offline(conclave: Command, tmp_path: Path) -> None:
    conclave("deliberate", "Verified?", "--agents", "3", "--control", "default", "--json")
    key, log = conclave("witness", "key").stdout.strip(), str(tmp_path / "log.jsonl")
    assert conclave("witness", "export", log).code == 0
    ran = conclave("witness", "verify", log, "--key", key, "--json")
    assert ran.code == 0
    assert len(ran.document["deliberations"]) == 2


def test_a_quote_counts_the_control(conclave: Command) -> None:
    alone = conclave("quote", "How dear?", "--agents", "4", "--json").document
    both = conclave("quote", "How dear?", "--agents", "4", "--control", "default", "--json").document
    assert both["calls"] == {"expected": 8, "at_most": 2 * alone["calls"]["at_most"]}
