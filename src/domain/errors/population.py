"""What can go wrong with a population, from its description to its last tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from domain.errors.conclave_error import ConclaveError
from domain.errors.deliberation import FieldProblem, InvalidSpecificationError

__all__ = [
    "BehaviourError",
    "DamagedRecordError",
    "EdgeFileError",
    "InvalidPopulationError",
    "MessagesLostError",
    "NotEnoughMemoryError",
    "PopulationDivergedError",
    "PopulationError",
    "PopulationFolderError",
    "PopulationFullError",
    "ShardLostError",
    "StateConflictError",
    "StateStoreFullError",
]


class PopulationError(ConclaveError):
    """Root of the errors about populations."""

    slug: ClassVar[str] = "population-error"


class InvalidPopulationError(InvalidSpecificationError):
    """A population was described in a way that cannot be run. Names every bad field, never its content."""

    slug: ClassVar[str] = "invalid-population"

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__(problems)


class NotEnoughMemoryError(PopulationError):
    """The population needs more memory than there is; nothing was allocated. Sizes are in bytes, `fits_agents` is how many would fit."""

    slug: ClassVar[str] = "not-enough-memory"

    def __init__(self, *, needed_bytes: int, available_bytes: int, fits_agents: int) -> None:
        super().__init__(
            f"this population needs {needed_bytes / 2**30:.2f} GiB and {available_bytes / 2**30:.2f} GiB are free: with these "
            f"options {fits_agents} agents fit; take fewer, or a smaller --state-bytes or --degree."
        )
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
        self.fits_agents = fits_agents


class PopulationFullError(PopulationError):
    """There is no free row for another agent."""

    slug: ClassVar[str] = "population-full"

    def __init__(self, *, wanted: int, free: int) -> None:
        super().__init__(
            f"{wanted} agents were to be spawned and {free} rows are free: retire some first, or begin with more rows."
        )
        self.wanted = wanted
        self.free = free


class EdgeFileError(PopulationError):
    """The edge file cannot be used; `line` counts its edges from 1 and is 0 where the whole file is meant."""

    slug: ClassVar[str] = "edge-file"

    def __init__(self, *, path: str, line: int, problem: str) -> None:
        where = f"edge {line} of {path!r}" if line else repr(path)
        super().__init__(
            f"{where} {problem}: each line names two agents by their numbers, from 0 to one less than --agents."
        )
        self.path = path
        self.line = line
        self.problem = problem


class BehaviourError(PopulationError):
    """A behaviour raised or answered what no tick can take. `agent` and `shard` are where; the tick was not taken."""

    slug: ClassVar[str] = "behaviour-failed"

    def __init__(self, *, behaviour: str, shard: int, agent: int, tick: int, problem: str) -> None:
        super().__init__(
            f"the behaviour {behaviour!r} failed at tick {tick} in shard {shard} at agent {agent}: {problem}. The snapshot before it "
            "is kept: mend the behaviour and resume."
        )
        self.behaviour = behaviour
        self.shard = shard
        self.agent = agent
        self.tick = tick
        self.problem = problem


class MessagesLostError(PopulationError):
    """What was sent in a tick is not what was delivered, expired and refused: a defect, and the tick was not taken."""

    slug: ClassVar[str] = "messages-lost"

    def __init__(self, *, tick: int, sent: int, delivered: int, expired: int, refused: int) -> None:
        super().__init__(
            f"tick {tick} sent {sent} messages, but delivered {delivered}, let {expired} expire and refused {refused}: "
            "resume from the snapshot before it and report this."
        )
        self.tick = tick
        self.sent = sent
        self.delivered = delivered
        self.expired = expired
        self.refused = refused


class ShardLostError(PopulationError):
    """A process that carried shards is gone; what it had done in this tick is gone with it."""

    slug: ClassVar[str] = "shard-lost"

    def __init__(self, *, worker: int, problem: str) -> None:
        super().__init__(f"shard process {worker} {problem}: resume from the last snapshot.")
        self.worker = worker
        self.problem = problem


class PopulationFolderError(PopulationError):
    """The folder of a population cannot be used; `remedy` says what to do."""

    slug: ClassVar[str] = "population-folder"

    def __init__(self, *, folder: str, problem: str, remedy: str) -> None:
        super().__init__(f"the population's folder {folder!r} {problem}. {remedy}")
        self.folder = folder
        self.problem = problem
        self.remedy = remedy


class DamagedRecordError(PopulationError):
    """A snapshot or the event log is damaged; `last_good_tick` is that of the last snapshot that can be resumed from, or None."""

    slug: ClassVar[str] = "damaged-record"

    def __init__(self, *, path: str, problem: str, last_good_tick: int | None) -> None:
        offer = (
            f"the last good snapshot is that of tick {last_good_tick}: resume with --from-tick {last_good_tick}"
            if last_good_tick is not None
            else "there is no good snapshot: run the population again"
        )
        super().__init__(f"{path!r} {problem}; {offer}.")
        self.path = path
        self.problem = problem
        self.last_good_tick = last_good_tick


class PopulationDivergedError(PopulationError):
    """A tick that was repeated after a resume came out differently than the event log has it."""

    slug: ClassVar[str] = "population-diverged"

    def __init__(self, *, tick: int) -> None:
        super().__init__(
            f"tick {tick} came out differently than the event log has it: the behaviour or the edge file was changed since; "
            "run the population again."
        )
        self.tick = tick


class StateConflictError(PopulationError):
    """A state was to be written over another version than the writer had read; nothing of its batch was written."""

    slug: ClassVar[str] = "state-conflict"

    def __init__(self, *, agent: int, expected: int, found: int) -> None:
        super().__init__(
            f"the state of agent row {agent} has version {found} and not {expected}: somebody else wrote it; read it again and decide anew."
        )
        self.agent = agent
        self.expected = expected
        self.found = found


class StateStoreFullError(PopulationError):
    """There is no room for so many states; nothing of the batch was written."""

    slug: ClassVar[str] = "state-store-full"

    def __init__(self, *, wanted: int, free: int) -> None:
        super().__init__(
            f"{wanted} states were to be written and there is room for {free}: drop some first, or give it more room."
        )
        self.wanted = wanted
        self.free = free
