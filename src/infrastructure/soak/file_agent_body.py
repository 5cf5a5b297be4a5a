"""How an agent that talks by files is run: forked from the small server, or on its own beside a run."""

import json
import os

from infrastructure.soak.envelope import envelope_of
from infrastructure.soak.file_agent import FileAgent, leave_on_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["run_alone", "run_file_agent"]

_FOLDERS = ("messages", "responses", "status", "drafts")
_RESUME_WITHIN_LOOKS = 30


def run_file_agent(configuration: "dict[str, Any]", agent: str, ear: int) -> None:
    """Answer until the bell says leave."""
    envelope = envelope_of(configuration)
    FileAgent(
        configuration["folder"],
        agent,
        bell=ear,
        pack=None if envelope is None else envelope.pack,
        unpack=None if envelope is None else envelope.unpack,
    ).serve()


def run_alone(folder: str, agent: str, configuration: "dict[str, Any]") -> None:
    """Answer until a signal comes, or the run that this agent has seen is over, or its orchestrator is dead for half a minute."""
    for name in ("", *_FOLDERS):
        os.makedirs(f"{folder}/{name}", mode=0o700, exist_ok=True)  # noqa: PTH103 - pathlib is not light
    envelope = envelope_of(configuration)
    alone = FileAgent(
        folder,
        agent,
        pack=None if envelope is None else envelope.pack,
        unpack=None if envelope is None else envelope.unpack,
        ended=_RunWatch(folder),
    )
    leave_on_signals(alone)
    alone.serve()


class _RunWatch:
    """Whether the run of a folder is over, by the file in which it says that it is there."""

    def __init__(self, folder: str) -> None:
        self._file = f"{folder}/run.json"
        self._without = 0
        # What an earlier run left says nothing about the one that is awaited.
        self._old = self._read()
        if self._old.get("status") == "running" and _lives(self._old.get("pid")):
            self._old = {}

    def __call__(self) -> bool:
        found = self._read()
        if not found or found == self._old:
            return False
        if found.get("status") != "running":
            return True
        self._without = 0 if _lives(found.get("pid")) else self._without + 1
        return self._without > _RESUME_WITHIN_LOOKS

    def _read(self) -> "dict[str, Any]":
        try:
            with open(self._file, "rb") as file:  # noqa: PTH123 - as above
                found = json.loads(file.read(65_536))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _lives(pid: object) -> bool:
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
