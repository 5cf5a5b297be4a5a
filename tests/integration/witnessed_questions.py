"""A question that simulated agents answer through the command line, so that the log here has something to witness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.command_line import Command

__all__ = ["QUESTION", "ended_deliberation", "simulated_settings"]

QUESTION = "Close the centre to cars?"


def simulated_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """Simulated agents and an empty data folder, in the environment."""
    chosen = {"CONCLAVE_DATA_DIR": str(folder / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


def ended_deliberation(conclave: Command) -> str:
    """The id of a deliberation that has ended."""
    ran = conclave("deliberate", QUESTION, "--option", "yes", "--option", "no", "--agents", "3", "--json")
    assert ran.code == 0, ran.stderr
    return str(ran.document["id"])
