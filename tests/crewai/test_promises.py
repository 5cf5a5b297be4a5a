"""A file watch and a socket watch over a process that asks through CrewAI: what it promises not to do, it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.crewai.watched_run import QUESTION
from tests.llm_server.handle import LlmServer

REPOSITORY = Path(__file__).parents[2]
CREWS = '''
from crewai import Agent, Crew, Task
from crewai.tools import tool

@tool("look_up")
def look_up(place: str) -> str:
    """Look a place up."""
    return "a quiet place"

def agent(*tools):
    return Agent(role="Planner", goal="Plan", backstory="You plan.", tools=list(tools))

def crew_of(one, **more):
    return Crew(agents=[one], tasks=[Task(description="What matters in {question}?", expected_output="a list", agent=one, **more)])

def fall(output):
    raise OSError("the bridge is out")

member = agent(look_up)
crew = crew_of(agent(look_up), output_file="left_behind.md")
failing = crew_of(agent(look_up), callback=fall)
'''


@dataclass
class Run:
    seen: dict[str, Any]
    data: Path
    folders: dict[str, Path]
    port: int
    output: str


@pytest.fixture(scope="module")
def run(running: LlmServer, tmp_path_factory: pytest.TempPathFactory) -> Run:
    running.reset()
    folders = {name: tmp_path_factory.mktemp(name) for name in ("home", "work", "temporary")}
    data, rosters = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("rosters")
    (rosters / "crews.py").write_text(CREWS)
    # What lies about on a developer's machine, and what CrewAI would take up.
    (folders["work"] / ".env").write_text("OPENAI_API_KEY=from-a-file\nCREWAI_TRACING_ENABLED=true\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "tests.crewai.watched_run", str(data), str(rosters), running.base_url]
    done = subprocess.run(command, cwd=folders["work"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    document, _, rest = done.stdout.rpartition('{"endings"')
    return Run(json.loads(f'{{"endings"{rest}'), data, folders, running.port, document + done.stderr)


def test_it_asked_through_crewai(run: Run) -> None:
    assert run.seen["has_crewai"]
    assert run.seen["endings"] == ["completed", "{", "{", "AgentInvocationError"]


def test_no_file_is_opened_for_writing_outside_of_the_data_folder(run: Run) -> None:
    astray = [path for path in run.seen["written"] if not Path(path).is_relative_to(run.data) and path != "/dev/null"]
    assert astray == []


def test_home_working_and_temporary_folder_are_as_they_were(run: Run) -> None:
    left = {name: sorted(path.name for path in folder.rglob("*")) for name, folder in run.folders.items()}
    assert left == {"home": [], "work": [".env"], "temporary": []}


def test_of_question_and_answers_nothing_is_on_the_disk_but_in_our_own_store(run: Run) -> None:
    holding = {
        path.relative_to(run.data).parts[0].partition(".")[0]
        for path in run.data.rglob("*")
        if path.is_file() and QUESTION[:24].encode() in path.read_bytes()
    }
    assert holding == {"conclave"}
    assert list((run.data / "crewai").glob("*")) == []


def test_nobody_is_connected_to_but_the_configured_provider(run: Run) -> None:
    assert run.seen["connected"] == [json.dumps(["127.0.0.1", run.port])]
    assert run.seen["other"] == []


def test_no_signal_is_taken_over_and_nothing_else_of_the_process_is_left_changed(run: Run) -> None:
    assert run.seen["signals_as_before"]
    assert run.seen["environment_changed"] == []
    assert run.seen["warn_as_before"]


def test_nothing_is_printed(run: Run) -> None:
    assert "marmot" not in run.output
    assert "╭" not in run.output
