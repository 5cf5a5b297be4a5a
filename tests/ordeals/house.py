"""Where real processes of Conclave live that a test starts, kills and starts again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from infrastructure.stubs.crash_points import CrashAt
from tests.nursery import Nursery, ProcessEndedError, RunningProcess
from tests.servers.keeper import free_port


class Kind(StrEnum):
    """What the processes are, and where they keep what they know."""

    SQLITE = "sqlite"
    POSTGRES = "postgres"
    WORKERS = "workers"


@dataclass
class House:
    """Where the processes of one ordeal live: their folders, their settings and their log."""

    kind: Kind
    folder: Path
    nursery: Nursery
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.log = self.folder / "processes.log"
        self.roles = ("server", "worker-1", "worker-2") if self.kind is Kind.WORKERS else ("server",)

    def of(self, role: str, crash: CrashAt | None = None) -> Mapping[str, str]:
        """The settings of one process. The second worker shares no folder with the others, as if on another machine."""
        data = self.folder / ("elsewhere" if role == "worker-2" else "data")
        armed = {} if crash is None else {"CONCLAVE_CRASH_AT": f"{crash.point}:{crash.passage}"}
        return {**self.settings, "CONCLAVE_DATA_DIR": str(data), **armed}

    def start(self, role: str, crash: CrashAt | None = None) -> RunningProcess:
        """Start it; it says a line once it is ready."""
        arguments = ["serve", "--port", str(self.port)] if role == "server" else ["worker"]
        settings = self.of(role, crash)
        return self.nursery.start(*arguments, "--json", settings=settings, folder=self.folder, log=self.log)

    def run(self, *arguments: str) -> tuple[int, str]:
        """The exit code of a command on the server's machine, and the first line that it printed."""
        process = self.nursery.start(*arguments, settings=self.of("server"), folder=self.folder, log=self.log)
        try:
            line = process.line()
        except ProcessEndedError:
            line = ""
        return process.wait(), line
