"""Commands whose standard streams are closed, or lead to a reader that has left."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

Settings = Mapping[str, str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Simulated agents and an empty data folder."""
    return {"CONCLAVE_DATA_DIR": str(tmp_path / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}


def _shell(command: str, settings: Settings) -> subprocess.CompletedProcess[str]:
    """`CONCLAVE` in the command is the command."""
    line = command.replace("CONCLAVE", f"'{sys.executable}' -m api.cli.main")
    return subprocess.run(
        ["bash", "-c", line], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_works_without_one_of_its_streams(settings: Settings, closed: str) -> None:
    ran = _shell(f"CONCLAVE deliberate Why? --agents 2 {closed}; exit $?", settings)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ("Roll call: 2 asked" in ran.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_a_question_from_a_closed_standard_input_is_a_usage_error(settings: Settings) -> None:
    ran = _shell("CONCLAVE deliberate - <&-", settings)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", "conclave: QUESTION: must not be empty\n")


@pytest.mark.parametrize("command", ["list", "list --json", "deliberate Why? --agents 2"])
def test_a_reader_that_leaves_is_told_as_such_whatever_is_printed(settings: Settings, command: str) -> None:
    ran = _shell(f"CONCLAVE {command} | true; exit ${{PIPESTATUS[0]}}", settings)
    assert (ran.returncode, ran.stderr) == (141, "")


def test_a_terminal_that_says_it_has_no_columns_is_one_of_unknown_width(settings: Settings) -> None:
    ran = _shell("CONCLAVE deliberate Why? --option yes --option no --agents 2", {**settings, "COLUMNS": "0"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert max(map(len, ran.stdout.splitlines())) in range(70, 81)
