"""`conclave swarm`: what it prints, where it leaves its documents, and how it refuses."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.bootstrap.swarm import Place, open_bus
from application.ports.message_bus import MessageBus
from domain.models.swarm import arguments_from_rest, command_line
from infrastructure.settings import Settings
from tests.command_line import Command, commands
from tests.servers.redis import RedisServer

PATIENCE_S = 60.0


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, in an empty working folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    monkeypatch.chdir(tmp_path)
    with commands(capsys) as run:
        yield run


def test_the_documents_lie_in_logs_unless_said_otherwise(conclave: Command, tmp_path: Path) -> None:
    code, out, err = conclave("swarm", "run", "--agents", "128", "--task", "coin-flip", "--batches", "32x4", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    place = Path(document["session_dir"])
    assert place.parent == tmp_path / "logs"
    assert json.loads((place / "metrics.json").read_text()) == document
    assert sorted(path.name for path in place.iterdir()) == ["metrics.json", "session.log", "traces.jsonl", "vault"]


def test_a_person_reads_who_was_counted_the_split_and_the_latencies(conclave: Command, tmp_path: Path) -> None:
    code, out, _ = conclave("swarm", "run", "--seed", "7", "--out", str(tmp_path / "elsewhere"))
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "128 of 128 counted"
    assert "32 batches of 4, 1 process, seed 7" in lines[1]
    assert any(line.startswith("heads") and " 62 " in line for line in lines)
    assert any("p = 0.791" in line for line in lines)
    assert any(line.startswith("up to ") for line in lines)
    assert lines[-2].startswith("completed")
    assert Path(lines[-1]).parent == tmp_path / "elsewhere"
    assert [path.name for path in tmp_path.iterdir() if path.name == "logs"] == []


def test_a_person_reads_who_is_missing_and_why(conclave: Command) -> None:
    code, out, _ = conclave("swarm", "run", "--dead", "7", "--silent", "12", "--timeout", "0.5")
    text = " ".join(out.split())
    assert code == 0
    assert text.startswith("126 of 128 counted")
    assert "not counted: coin-agent-7, coin-agent-12" in text
    assert "coin-agent-7: died (the agent was killed while it acted), 2 attempts, not counted" in text
    assert "coin-agent-12: silent (not heard of within 0.5 s), 2 attempts, not counted" in text


def test_with_less_than_half_counted_the_exit_code_is_1(conclave: Command) -> None:
    code, out, _ = conclave("swarm", "run", "--agents", "4", "--dead", "1,2,3", "--json")
    assert (code, json.loads(out)["status"]) == (1, "failed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--agents", "100", "--batches", "32x4"), "32x4 is 128"),
        (("--batches", "4"), "--batches"),
        (("--agents", "0"), "1 to 10000"),
        (("--agents", "10001"), "1 to 10000"),
        (("--agents", "many"), "--agents"),
        (("--task", "dice"), "coin-flip, question, or a function as module:function"),
        (("--task", "no_such_module_here:work", "--agents", "4"), "no_such_module_here"),
        (("--task", "question"), "QUESTION"),
        (("--task", "question", "--agents", "73", "Shall we?"), "1 to 72"),
        (("a question for coins?",), "QUESTION"),
        (("--transport", "pigeon"), "memory, redis, file, shm"),
        (("--instances", "2"), "redis, file or shm"),
        (("--transport", "redis", "--agents", "4"), "CONCLAVE_REDIS_URL"),
        (("--items", "nowhere", "--task", "json:dumps"), "--items"),
        (("--items", "nowhere"), "module:function"),
        (("--seed", "-1"), "--seed"),
        (("--timeout", "0"), "--timeout"),
        (("--timeout", "86401"), "--timeout"),
        (("--batches", "99999x4"), "--batches 99999 batches"),
        (("--timeout", "nan"), "finite"),
        (("--session", "../up"), "--session"),
        (("--out", "taken"), "--out"),
    ],
)
def test_a_swarm_that_cannot_be_is_refused_as_usage(
    arguments: tuple[str, ...], said: str, conclave: Command, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    code, out, err = conclave("swarm", "run", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_items_say_how_many_agents_there_are(conclave: Command, tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    for number in range(5):
        (tmp_path / "items" / f"{number}.txt").write_text("x" * number)
    task = ("--task", "os.path:getsize", "--items", "items", "--json")
    code, out, _ = conclave("swarm", "run", *task)
    document = json.loads(out)
    assert (code, document["received"]) == (0, 5)
    vault = json.loads((Path(document["session_dir"]) / "vault" / "results.json").read_text())
    assert [each["result"] for each in vault["results"]] == [0, 1, 2, 3, 4]
    code, _, err = conclave("swarm", "run", "--agents", "6", *task)
    assert code == 2
    assert "5 files" in err


def test_a_question_is_put_to_members(conclave: Command) -> None:
    code, out, _ = conclave("swarm", "run", "--task", "question", "--agents", "4", "Shall we?", "--json")
    document = json.loads(out)
    assert (code, document["received"], document["simulated"]) == (0, 4, True)


def test_the_command_line_of_rest_arguments_runs(conclave: Command) -> None:
    arguments, problems = arguments_from_rest({"task": "question", "question": "-x or y?", "agents": 3, "seed": 4})
    assert problems == []
    code, out, _ = conclave(*command_line(arguments), "--json")
    assert (code, json.loads(out)["seed"]) == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--url", "http://host", "--session", "x"), "--url"),
        (("--url", "shm://x", "--session", "../x"), "--session"),
        (("--url", "shm://x"), "--session"),
        (("--url", "shm://x", "--session", "x", "--wait", "-1"), "--wait"),
    ],
)
def test_a_session_that_cannot_be_joined_is_refused_as_usage(
    arguments: tuple[str, ...], said: str, conclave: Command
) -> None:
    code, _, err = conclave("swarm", "join", *arguments)
    assert code == 2
    assert said in err


def test_a_session_that_is_not_there_is_a_dependency_that_is_away(conclave: Command, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bus"
    code, _, err = conclave("swarm", "join", "--url", url, "--session", "nowhere", "--wait", "0.1")
    assert code == 4
    assert "session 'nowhere'" in err
    assert not (tmp_path / "bus").exists()


def test_a_swarm_that_loses_its_redis_prints_what_was_counted_and_ends_with_4(
    conclave: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "swarm_without_redis.py").write_text(
        "import asyncio\n"
        "async def work(number):\n"
        "    if number == 4:\n"
        "        await asyncio.to_thread(lose_redis)\n"
        "        await asyncio.Event().wait()\n"
        "    return number\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("swarm_without_redis")

    def open_impatiently(place: Place, settings: Settings | None, **limits: Any) -> MessageBus:
        return open_bus(place, settings, **limits, patience_s=0.2)

    monkeypatch.setattr("api.bootstrap.swarm.open_bus", open_impatiently)
    with RedisServer() as server:
        monkeypatch.setattr(module, "lose_redis", server.kill, raising=False)
        monkeypatch.setenv("CONCLAVE_REDIS_URL", server.url())
        task = ("--task", "swarm_without_redis:work", "--agents", "4", "--transport", "redis")
        code, out, _ = conclave("swarm", "run", *task, "--json")
    document = json.loads(out)
    assert (code, document["status"], document["failure"]["kind"]) == (4, "failed", "bus-unavailable")
    assert "agent-4" in document["missing"]
    assert json.loads((Path(document["session_dir"]) / "metrics.json").read_text()) == document


def test_an_instance_that_is_never_ready_is_named_as_gone(
    conclave: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("application.services.swarm.swarm._GATHER_S", 0.01)
    task = ("--transport", "file", "--instances", "2", "--agents", "4", "--json")
    code, out, err = conclave("swarm", "run", *task)
    assert code == 0, err
    assert (json.loads(out)["received"], json.loads(out)["gone"]) == (4, ["tool-2"])
    assert "never ready or did not live to the end: tool-2" in err


def test_ctrl_c_still_prints_what_was_counted(tmp_path: Path) -> None:
    (tmp_path / "swarm_held.py").write_text(
        "import asyncio, sys\n"
        "async def work(number):\n"
        "    if number == 4:\n"
        "        print('going', file=sys.stderr, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "    return number\n"
    )
    environment = {**os.environ, "CONCLAVE_DATA_DIR": str(tmp_path / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    code = "import sys; from api.cli.main import execute; sys.exit(execute(sys.argv[1:]))"
    command = ("swarm", "run", "--task", "swarm_held:work", "--agents", "4", "--json")
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        while "going" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    document = json.loads(out)
    assert process.returncode == 130
    assert (document["status"], document["received"], document["missing"]) == ("cancelled", 3, ["agent-4"])
