"""The command `conclave pantheon`: exit codes, documents, files of roles, and models behind a real server."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from domain.models.pantheon import ROW, arguments_from_rest, command_line
from tests.command_line import Command, commands
from tests.llm_server.handle import LlmServer

Write = Callable[[str], str]


@pytest.fixture
def conclave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, with simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


@pytest.fixture
def roles(tmp_path: Path) -> Write:
    """Writes a file of roles and gives its path."""

    def written(text: str) -> str:
        file = tmp_path / "roles.toml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return written


def test_a_task_goes_through_all_nine(conclave: Command) -> None:
    ran = conclave("pantheon", "run", "hello big world", "--json")
    assert ran.code == 0
    document = ran.document
    assert (document["status"], document["cycles"], document["simulated"]) == ("executed", 1, False)
    assert [handoff["to"] for handoff in document["handoffs"]] == [role.value for role in ROW]
    assert document["executed"] == [
        {"step": "echo", "output": "hello big world"},
        {"step": "word_count", "output": 3},
        {"step": "sha256", "output": hashlib.sha256(b"hello big world").hexdigest()},
    ]


def test_an_unknown_step_executes_nothing_and_ends_with_code_one(conclave: Command) -> None:
    ran = conclave("pantheon", "run", "a", "--step", "echo", "--step", "rm -rf /", "--json")
    assert ran.code == 1
    assert (ran.document["status"], ran.document["executed"]) == ("rejected", [])
    assert ran.document["rejected"][0]["step"] == "rm -rf /"


def test_named_steps_run_in_the_order_given(conclave: Command) -> None:
    ran = conclave("pantheon", "run", "a", "--step", "sha256", "--step", "echo", "--cycles", "2", "--json")
    assert [done["step"] for done in ran.document["executed"]] == ["sha256", "echo"] * 2
    assert len(ran.document["handoffs"]) == 18


def test_without_json_a_person_reads_a_table(conclave: Command) -> None:
    ran = conclave("pantheon", "run", "hello\x1b[2J world")
    assert ran.code == 0
    assert "learner    improver" in ran.stdout
    assert "word_count: 2" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give TASK once"),
        (("a", "--task", "b"), "give TASK once"),
        ((" ",), "TASK must not be empty"),
        (("a" * 40_000,), "at most 32768"),
        (("a", "--cycles", "0"), "--cycles must be 1 to 1000"),
        (("a", "--cycles", "1001"), "--cycles must be 1 to 1000"),
        (("a", "--transport", "pigeon"), "memory, redis, file, shm"),
        (("a", "--transport", "redis"), "CONCLAVE_REDIS_URL"),
        (("a", "--roles", "away.toml"), "'away.toml': it cannot be read"),
    ],
)
def test_what_cannot_be_run_is_a_usage_error(conclave: Command, arguments: tuple[str, ...], said: str) -> None:
    ran = conclave("pantheon", "run", *arguments)
    assert ran.code == 2
    assert said in ran.stderr
    assert ran.stdout == ""


def test_a_bad_file_of_roles_is_named_with_its_line_before_anything_is_run(conclave: Command, roles: Write) -> None:
    path = roles('[observer]\nmodel = "a/b"\nfunction = "m:f"\n')
    ran = conclave("pantheon", "run", "a", "--roles", path, "--json")
    assert ran.code == 2
    assert f"{path!r}, line 3: it has model and function" in ran.stderr
    assert ran.stdout == ""


def test_the_arguments_of_rest_are_this_command_line(conclave: Command) -> None:
    checked, problems = arguments_from_rest({"task": "--json", "steps": ["echo", "--help"], "transport": "shm"})
    assert problems == []
    ran = conclave(*command_line(checked), "--json")
    assert (ran.code, ran.document["task"]) == (1, "--json")
    assert [refused["step"] for refused in ran.document["rejected"]] == ["--help", "echo"]


def test_functions_beside_the_file_of_roles_are_found(conclave: Command, roles: Write, tmp_path: Path) -> None:
    (tmp_path / "cli_functions_of_a_test.py").write_text("def plan(brief):\n    return ['word_count']\n")
    path = roles('[reasoner]\nfunction = "cli_functions_of_a_test:plan"\n')
    before = list(sys.path)
    try:
        ran = conclave("pantheon", "run", "one two", "--roles", path, "--json")
    finally:
        sys.path[:] = before
    assert ran.document["executed"] == [{"step": "word_count", "output": 2}]


@pytest.fixture
def models(llm_server: LlmServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LlmServer:
    """A server of models that a file of providers names `one`."""
    file = tmp_path / "providers.toml"
    file.write_text(f'[providers.one]\nbase_url = "{llm_server.base_url}"\nmodels = ["small"]\n')
    llm_server.configure(models=["small"])
    monkeypatch.setenv("CONCLAVE_PROVIDERS_FILE", str(file))
    return llm_server


@pytest.fixture
def with_models(conclave: Command, models: LlmServer, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, asking that server."""
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "openai")
    return conclave


def test_a_role_is_asked_of_a_model_and_nothing_is_simulated(
    with_models: Command, models: LlmServer, roles: Write
) -> None:
    models.configure(answers={"": json.dumps({"answer": "sha256", "confidence": 0.9, "reasoning": "short"})})
    ran = with_models("pantheon", "run", "a", "--roles", roles('[reasoner]\nmodel = "one/small"\n'), "--json")
    assert (ran.code, ran.document["simulated"]) == (0, False)
    assert [done["step"] for done in ran.document["executed"]] == ["sha256"]
    assert len([entry for entry in models.journal() if entry["counted"]]) == 1
    usage = with_models("usage", "--by", "model", "--json").document["items"]
    assert [(item["key"], item["calls"]) for item in usage] == [("one/small", 1)]


def test_a_model_that_fails_is_named_with_its_role(with_models: Command, models: LlmServer, roles: Write) -> None:
    models.configure(fault="401")
    ran = with_models("pantheon", "run", "a", "--roles", roles('[learner]\nmodel = "one/small"\n'), "--json")
    assert (ran.code, ran.document["status"]) == (1, "failed")
    assert ran.document["failure"]["role"] == "learner"
    assert "one/small" in ran.document["failure"]["message"]
    assert len(ran.document["executed"]) == 3


def test_a_model_that_no_provider_has_is_refused_before_anything_is_done(
    with_models: Command, models: LlmServer, roles: Write
) -> None:
    ran = with_models("pantheon", "run", "a", "--roles", roles('[learner]\nmodel = "two/large"\n'), "--json")
    assert ran.code == 2
    assert "[learner]: model = 'two/large'" in ran.stderr
    assert models.journal() == []


def test_a_model_that_its_provider_does_not_offer_is_refused_before_anything_is_done(
    with_models: Command, models: LlmServer, roles: Write
) -> None:
    ran = with_models("pantheon", "run", "a", "--roles", roles('[reasoner]\nmodel = "one/large"\n'), "--json")
    assert ran.code == 2
    assert "[reasoner]: model = 'one/large'" in ran.stderr
    assert models.journal() == []


def test_ctrl_c_ends_a_run_with_what_was_executed(tmp_path: Path, roles: Write) -> None:
    (tmp_path / "hanging_of_a_test.py").write_text(
        "import asyncio, sys\n\nasync def hang(brief):\n    sys.stderr.write('hanging\\n')\n    sys.stderr.flush()\n"
        "    await asyncio.Event().wait()\n"
    )
    path = roles('[memory]\nfunction = "hanging_of_a_test:hang"\n')
    command = [sys.executable, "-m", "api.cli.main", "pantheon", "run", "a", "--roles", path, "--json"]
    chosen = {"CONCLAVE_DATA_DIR": str(tmp_path / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    with subprocess.Popen(
        command, env={**os.environ, **chosen}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        while process.stderr.readline().strip() != "hanging":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        document = json.loads(process.stdout.read())
        code = process.wait(timeout=60)
    assert code == 130
    assert (document["status"], document["failure"]["kind"]) == ("failed", "cancelled")
    assert len(document["executed"]) == 3
