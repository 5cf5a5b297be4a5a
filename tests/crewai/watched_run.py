"""Asks agents and a crew through CrewAI as a user's process does, and says which files it opened and whom it connected to.

    python -m tests.crewai.watched_run DATA_FOLDER ROSTERS_FOLDER BASE_URL

Prints one JSON document on standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "sqlite3.connect"}
OTHER_WAYS_OUT = {
    "socket.sendto",
    "socket.sendmsg",
    "socket.bind",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
}

QUESTION = "Should the {city} centre be closed to private cars, says the marmot?"


class Watch:
    """What the audit events of the interpreter tell of files and sockets (PEP 578)."""

    def __init__(self) -> None:
        self.written: set[str] = set()
        self.connected: set[str] = set()
        self.other: set[str] = set()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes) and (flags & WRITING or (mode and set(mode) & set("wax+"))):
                self.written.add(str(Path(os.fsdecode(path)).absolute()))
        elif event in CHANGES:
            self.written.add(str(Path(str(arguments[0]).removeprefix("file:").partition("?")[0]).absolute()))
        elif event == "socket.connect":
            self.connected.add(json.dumps(arguments[1][:2]))
        elif event in OTHER_WAYS_OUT and not (event == "socket.bind" and arguments[1][:2] == ("::1", 0)):
            # A library looks by such a bind, which nobody can reach, whether there is IPv6.
            self.other.add(f"{event} {arguments[1:]}")


def handlers() -> dict[str, str]:
    return {
        number.name: repr(signal.getsignal(number)) for number in signal.Signals if number in signal.valid_signals()
    }


async def ask(data: Path, rosters: Path, base_url: str) -> list[str]:
    from api.bootstrap import Purpose, open_conclave
    from application.ports.agent_orchestrator import AgentRequest, ContextBundle
    from domain.models.agent import CrewReference
    from domain.models.deliberation import Specification
    from domain.models.question import AnswerFormat, AnswerKind, Question
    from domain.voting.rule import Rule, RuleKind
    from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
    from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
    from infrastructure.settings import load_settings

    verdict = AnswerFormat(AnswerKind.VERDICT)
    settings = load_settings(
        {
            "CONCLAVE_DATA_DIR": str(data),
            "CONCLAVE_ORCHESTRATOR": "crewai",
            "CONCLAVE_LLM_BASE_URL": base_url,
            "CONCLAVE_ROSTERS_DIR": str(rosters),
        },
        None,
    )
    async with open_conclave(settings, purpose=Purpose.SERVE) as conclave:
        roster = conclave.rosters.get("archons").first(6)
        specification = Specification(Question(QUESTION, None, verdict), roster, Rule(RuleKind.THRESHOLD))
        accepted = await conclave.deliberations.submit(specification)
        ended = await conclave.deliberations.wait(accepted.id, timeout_s=60)
    endings = [ended.status.value]
    async with (
        OpenAIOrchestrator(base_url=base_url, max_connections=4) as models,
        CrewAIAdapter(models=models, storage_dir=data / "crewai", crews_dir=rosters) as adapter,
    ):
        for name in ("crew", "member", "failing"):
            request = AgentRequest(
                "archon-1",
                ContextBundle("t-1", QUESTION),
                persona="You look twice.",
                expected=verdict,
                crew=CrewReference(f"crews.py:{name}", ("look_up",)),
            )
            try:
                endings.append((await adapter.invoke(request)).content[:1])
            except Exception as error:  # noqa: BLE001 - told to whoever watches
                endings.append(type(error).__name__)
    return endings


def main() -> None:
    data, rosters, base_url = sys.argv[1:]
    watch = Watch()
    before, environment, warn = handlers(), dict(os.environ), warnings.warn
    sys.addaudithook(watch)
    endings = asyncio.run(ask(Path(data), Path(rosters), base_url))
    seen = {
        "endings": endings,
        "written": sorted(watch.written),
        "connected": sorted(watch.connected),
        "other": sorted(watch.other),
        "signals_as_before": handlers() == before,
        "environment_changed": sorted(name for name, _ in set(os.environ.items()) ^ set(environment.items())),
        "warn_as_before": warnings.warn is warn,
        "has_crewai": "crewai" in sys.modules,
    }
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main()
