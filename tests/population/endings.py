"""Ways to end a population in its middle, and what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from application.ports.population_engine import PopulationEngine, TickOutcome

__all__ = ["MINDS", "EndedHereError", "Ending", "command", "ended", "ticks_in"]

MINDS = "tests.population.minds"


class EndedHereError(Exception):
    """The test ends the run, as a kill would."""


class Ending:
    """An engine that ends the run, stops it, or lies, once it has taken a certain tick."""

    def __init__(self, engine: PopulationEngine, *, at: int, by: Any) -> None:
        self._engine, self._at, self._by = engine, at, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def tick(self, number: int) -> TickOutcome:
        """That of the engine, and then the end."""
        outcome = self._engine.tick(number)
        return outcome if number != self._at else self._by(outcome)


def ended(_: TickOutcome) -> TickOutcome:
    """End the run here and now."""
    raise EndedHereError


def ticks_in(out: Path) -> list[int]:
    """The ticks that stand in `ticks.jsonl`."""
    return [json.loads(line)["tick"] for line in (out / "ticks.jsonl").read_text().splitlines()]


def command(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`conclave` in a process of its own, with its data in `folder`, which it works in."""
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "CONCLAVE_DATA_DIR": str(folder / "data"),
            **environment,
        },
        cwd=folder,
    )
