"""The ports to the runs of this data folder: who runs them, who reads them, and who starts one in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from application.ports.idempotency import IdempotencyKey
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, Run
from domain.models.run_event import RunEvent

__all__ = [
    "RememberedRun",
    "RunAnnouncement",
    "RunLauncher",
    "RunPage",
    "RunProcess",
    "RunReader",
    "RunRecord",
    "RunRegistry",
    "Unwanted",
]


class Unwanted(StrEnum):
    """Why nobody wants a run any more, in words."""

    CANCELLED = "it was cancelled"
    HALTED = "the system was halted"
    ORPHANED = "the server that started it is gone"


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, newest first, and where the next page begins, None on the last. Results that are large are left out of a page."""

    items: Sequence[Run]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class RememberedRun:
    """Which run an idempotency key stands for, and SHA-256 (hex) of the body that came with it."""

    run_id: str
    body_sha256: str


class RunRecord(Protocol):
    """One run as the process has it that runs it: nobody else has it at the same time, and when that process dies the run has failed.

    It is also the observer of its run (`RunObserver`): what cannot be noted is counted, and said with the end.
    """

    @property
    def id(self) -> str:
        """The run's name."""
        ...

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        """As in `RunObserver`. May be called from any thread."""
        ...

    def count(self, stats: BusStats) -> None:
        """As in `RunObserver`. May be called from any thread."""
        ...

    def tally(self, counts: PopulationCounts) -> None:
        """As in `RunObserver`. May be called from any thread."""
        ...

    def unwanted(self) -> Unwanted | None:
        """Whether its end is wished for, and why. A quick look, from any thread."""
        ...

    def end(
        self,
        status: DeliberationStatus,
        *,
        at: datetime,
        result: Mapping[str, JsonValue] | None = None,
        reason: str | None = None,
    ) -> Sequence[str]:
        """Record how it ended, once; returns what could not be recorded, in words, mostly nothing. Raises nothing for that."""
        ...

    def close(self) -> None:
        """Let go of the run."""
        ...


class RunAnnouncement(Protocol):
    """A run that is stored as queued for another process to take over; while nobody lets go of it, it counts as alive."""

    def close(self) -> None:
        """Let go of it: unless its process lives, it has failed."""
        ...


class RunReader(Protocol):
    """Reads the runs. Every call may wait for a disk, so an event loop calls from a thread. A run whose process died reads as failed."""

    def get(self, run_id: str) -> Run:
        """The run with its whole result. Raises `RunNotFoundError`."""
        ...

    def page(
        self,
        *,
        status: DeliberationStatus | None = None,
        key_name: str | None = None,
        limit: int,
        cursor: str | None = None,
    ) -> RunPage:
        """The newest runs before `cursor`, of one state or key's name where given. Raises `InvalidSpecificationError` for no cursor."""
        ...

    def events(self, run_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[RunEvent]:
        """The next events after that sequence number, in order. Raises `RunNotFoundError`."""
        ...


class RunRegistry(RunReader, Protocol):
    """Keeps the newest runs, and who runs them. Every call may wait for a disk, so an event loop calls from a thread.

    Each call raises `DependencyUnavailableError` where what it changes cannot be kept.
    """

    def register(self, run: Run) -> RunRecord:
        """A new run of this process, running from `run.started_at`. Stored when this returns."""
        ...

    def announce(self, run: Run, *, idempotency: IdempotencyKey | None = None) -> RunAnnouncement:
        """A new run that another process is going to take over; queued, and stored when this returns, with what its caller calls it.

        Raises `RunKeyTakenError` when the key stands for another run already; then nothing is stored.
        """
        ...

    def remembered(self, idempotency: IdempotencyKey) -> RememberedRun | None:
        """What that caller's key stands for, whatever body came with it; None where its run is a day old or gone, or there is none."""
        ...

    def forget_key(self, run_id: str) -> None:
        """From now on no key stands for that run, because it never began; nothing happens where none did."""
        ...

    def take_over(self, run_id: str, *, at: datetime) -> RunRecord:
        """The run that was announced, running from `at`. Raises `RunNotFoundError` and `RunTakenError`."""
        ...

    def request_end(self, run_id: str, why: Unwanted = Unwanted.CANCELLED) -> Run:
        """Tell its process that its end is wished for; the first to say why is heard. Raises `RunNotFoundError` and `RunEndedError`."""
        ...

    def settle(self, run_id: str, status: DeliberationStatus, *, reason: str) -> Run:
        """Record for a process that is dead that its run ended so; how a run ended by itself stays. Raises `RunNotFoundError`."""
        ...


class RunProcess(Protocol):
    """The process that a run was started in, with whatever that started in turn."""

    async def wait(self) -> int:
        """How it ended: an exit code, or the negative number of the signal that killed it. Nothing of it runs then any more."""
        ...

    def terminate(self) -> None:
        """Ask it to end; nothing happens where it has."""
        ...

    def kill(self) -> None:
        """End it, with all that it started; nothing happens where it has ended."""
        ...


class RunLauncher(Protocol):
    """Starts processes."""

    async def launch(self, run: Run, command_line: Sequence[str]) -> RunProcess:
        """The command line of Conclave, without its name, in a process of its own. Raises `DependencyUnavailableError`."""
        ...
