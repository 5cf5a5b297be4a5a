"""The ports of a soak: the processes of its agents, the way messages go, what processes take, and where the run is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from domain.models.run import JsonValue

__all__ = [
    "AgentHost",
    "Load",
    "Order",
    "ProcessGauge",
    "ProcessMemory",
    "Resources",
    "SoakPost",
    "SoakRecord",
    "UndeliverableError",
]


class UndeliverableError(Exception):
    """A message could not be put where its agent looks; `reason` says why. It may be tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Order:
    """One message to one agent. `priority` is 0 (first) to 2; `data` holds `iterations`, `size` (bytes) or nothing."""

    agent: str
    message_id: str
    kind: str
    cycle: int
    priority: int = 1
    data: Mapping[str, JsonValue] = field(default_factory=dict)


class AgentHost(Protocol):
    """Starts, watches and ends the agents that belong to the run; none of them outlives it, however it ends."""

    # Called with the agent, its pid and how it ended (an exit code, or minus the number of a signal), each time one has ended.
    on_exit: Callable[[str, int, int], None]

    async def open(self) -> None:
        """Get ready to start agents. Raises `DependencyUnavailableError`."""
        ...

    async def start(self, agents: Sequence[str]) -> Mapping[str, int]:
        """Start these; returns their pids. They are not ready yet. Raises `DependencyUnavailableError`."""
        ...

    async def stop(self, agents: Sequence[str], *, within_s: float) -> None:
        """Ask these to leave and wait for it; whoever has not left by then is killed."""
        ...

    def kill(self, agent: str) -> int | None:
        """Kill one as the kernel would; its pid, None when it does not run."""
        ...

    def helpers(self) -> Sequence[int]:
        """The pids of other processes that messages pass on their way."""
        ...

    async def close(self) -> None:
        """End every agent, at once where it does not leave by itself."""
        ...


class SoakPost(Protocol):
    """Carries messages to agents and their responses back, and knows who is there, agents of others among them."""

    # Called with the agent, the id of the message and the response, each time one has come; the id may be anybody's.
    on_response: Callable[[str, str, Mapping[str, JsonValue]], None]

    @property
    def corrupt(self) -> int:
        """What was found in a place of responses or of agents and is none."""
        ...

    async def open(self) -> None:
        """Clear what an earlier run left, and begin to listen. Raises `ConfigurationError`, `DependencyUnavailableError`."""
        ...

    def expect(self, agent: str, pid: int | None) -> None:
        """From now on the agent of that name is this process of the run's own; None: the run has none of that name any more."""
        ...

    def ended(self, agent: str) -> None:
        """The process of one of the run's own has ended; it is ready again when its successor says so."""
        ...

    def taken(self) -> frozenset[str]:
        """The names that agents of others have, ready or not, which the run's own may not take."""
        ...

    async def ready(self, agents: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        """Wait until these of the run's own are ready, `timeout_s` at most; those that are."""
        ...

    def members(self) -> Mapping[str, int]:
        """Who is ready and lives, with pids: the run's own and those of others."""
        ...

    def lives(self, agent: str) -> bool:
        """Whether the process of a member is still there."""
        ...

    def begin_cycle(self) -> None:
        """Clear away what the last cycle left."""
        ...

    async def put(self, order: Order) -> None:
        """Put a message where its agent looks, in place of its last one. Raises `UndeliverableError`."""
        ...

    def withdraw(self, agent: str) -> None:
        """Take back the message that an agent was sent last: it is answered or given up."""
        ...

    async def audit(self, *, final: bool = False) -> None:
        """Look through everything that agents write, for what no event has told and for what is corrupt.

        What is young may be half written and is looked at again the next time, or, when this is `final`, after a moment.
        """
        ...

    def size_bytes(self) -> int:
        """What the messages take, where that can be told; 0 otherwise."""
        ...

    async def close(self) -> None:
        """Listen no more."""
        ...


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """Bytes of one process: resident, proportional and unique set size; `anonymous` is the part of `pss` that is no file's."""

    rss: int
    pss: int
    uss: int
    anonymous: int
    descriptors: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """Seconds since it started that each process worked and waited for a core, and that the machine's cores were taken from it."""

    worked: Mapping[int, float]
    waited: Mapping[int, float]
    stolen: float
    cores: int = 1


@dataclass(frozen=True, slots=True)
class Resources:
    """What is left and used where the run itself works."""

    descriptors: int
    own: ProcessMemory | None = None


class ProcessGauge(Protocol):
    """Measures processes by their pids; one that is gone or may not be looked at is left out."""

    def memory(self, pids: Iterable[int]) -> Mapping[int, ProcessMemory]:
        """What these take now."""
        ...

    def load(self, pids: Iterable[int]) -> Load:
        """What these and this process worked and waited."""
        ...

    def resources(self) -> Resources:
        """What this process takes now."""
        ...


class SoakRecord(Protocol):
    """The output folder: each row of a cycle is on the disk when `add_row` returns, or is tried again with the next."""

    def add_row(self, row: Mapping[str, JsonValue]) -> None:
        """One line of the metrics. Raises `DependencyUnavailableError` where it cannot be written, and keeps it for later."""
        ...

    def rows(self) -> Sequence[Mapping[str, JsonValue]]:
        """The rows that are in the file now."""
        ...

    def say(self, level: str, text: str) -> None:
        """One line of the log."""
        ...

    def keep(self, entry: Mapping[str, JsonValue]) -> None:
        """One message or response for the history."""
        ...

    def write_report(self, report: Mapping[str, JsonValue]) -> None:
        """The report, as a document and as a page. Raises `DependencyUnavailableError`."""
        ...
