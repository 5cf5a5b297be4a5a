"""`conclave demo` as it is typed: what it says last holds once it has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import Command, commands


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    with commands(capsys) as started:
        yield started


def test_what_is_gone_afterwards_is_not_said_to_be_shown_again(run: Command) -> None:
    ran = run("demo", "--once", "--seconds", "0")
    assert ran.code == 0
    assert ran.stdout.count("Decision:") == 2
    assert "Show this again" not in ran.stdout


def test_what_is_kept_is_shown_again_by_the_command_that_it_names(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run("demo", "--once", "--seconds", "0", "--data-dir", str(tmp_path / "kept"))
    # The path is longer than a line.
    named = re.findall(r"Showthisagain:CONCLAVE_DATA_DIR=(\S+?)conclaveshow([0-9a-f]{8})", "".join(ran.stdout.split()))
    assert [folder for folder, _ in named] == [str(tmp_path / "kept")] * 2
    monkeypatch.setenv("CONCLAVE_DATA_DIR", named[0][0])
    assert "Should the city centre be closed to private cars?" in run("show", named[0][1]).words
