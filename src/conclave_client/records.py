"""Everything else that the server shows: events, the log, runs, rosters, money, and how it does.

Times are RFC 3339, hashes in hex, money in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conclave_client.deliberation import Rule
from conclave_client.document import Document, named
from conclave_client.outcome import Outcome

__all__ = [
    "AgentScore",
    "Alive",
    "Bundle",
    "BundleEntry",
    "CalibrationBin",
    "ConsistencyProof",
    "Dependency",
    "Disclosure",
    "Event",
    "Halt",
    "HaltChannel",
    "InclusionProof",
    "LogEntry",
    "ModelScore",
    "Pool",
    "Quote",
    "QuotedCost",
    "QuotedCount",
    "Readiness",
    "Recount",
    "Resolution",
    "Roster",
    "RosterAgent",
    "RosterEntry",
    "Run",
    "RunEvent",
    "Standing",
    "TrackRecord",
    "UsageItem",
]

_ENDED = frozenset({"completed", "inquorate", "cancelled", "halted", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Document):
    """Something that happened in a deliberation; what belongs to its type stands in `document`."""

    sequence: int
    type: str
    at: str
    deliberation_id: str

    @property
    def is_terminal(self) -> bool:
        """Whether it is the last one."""
        return _is_terminal("deliberation", self.type)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent(Document):
    """Something that happened in a run; what belongs to its type stands in `document`."""

    sequence: int
    type: str
    at: str
    run_id: str

    @property
    def is_terminal(self) -> bool:
        """Whether it is the last one."""
        return _is_terminal("run", self.type)


def _is_terminal(subject: str, event: str) -> bool:
    noun, _, what = event.partition(".")
    return noun == subject and what in _ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class Recount(Document):
    """What another rule makes of the recorded ballots."""

    deliberation_id: str
    rule: Rule
    outcome: Outcome | None
    leaf_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentScore(Document):
    """One agent against the truth of this question: 0 for right and sure of it, 1 for wrong and sure of it."""

    agent_id: str
    score: float | None
    questions: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore(Document):
    """One model against the truth of this question, the mean over the agents that it answered for."""

    model: str
    score: float
    answers: int
    questions: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin(Document):
    """The answers whose stated confidence lies between two bounds, and what share of them was right."""

    count: int
    stated: float | None
    right: float | None
    low: float = named("from")
    high: float = named("to")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution(Document):
    """How a question turned out, and how near everybody was."""

    deliberation_id: str
    answer: str | float | tuple[str, ...]
    brier: float | None
    correct: bool | None
    error: float | None
    agents: tuple[AgentScore, ...]
    models: tuple[ModelScore, ...]
    calibration: tuple[CalibrationBin, ...]
    leaf_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(Document):
    """One agent or model over all questions that were resolved."""

    name: str
    questions: int
    score: float
    skill: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRecord(Document):
    """Who was right where the truth is known."""

    questions: int
    agents: tuple[Standing, ...]
    models: tuple[Standing, ...]
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedCount(Document):
    """Calls, or tokens."""

    expected: int
    at_most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedCost(Document):
    """US dollars; None where a model has no known price."""

    expected: float | None
    at_most: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Document):
    """What a deliberation would take, before anything is spent."""

    calls: QuotedCount
    tokens: QuotedCount
    cost_usd: QuotedCost
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageItem(Document):
    """What the calls of one deliberation, key, provider, model or day took."""

    key: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_tokens: int
    uncertain_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Document):
    """A swarm, pantheon, soak or population; `result` is None until it ended, and in a list where it is large."""

    id: str
    kind: str
    status: str
    started_at: str | None
    finished_at: str | None
    arguments: Mapping[str, Any]
    result: Mapping[str, Any] | None
    reason: str | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterEntry(Document):
    """A roster in the list."""

    name: str
    description: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RosterAgent(Document):
    """One voice: an id, a viewpoint and, when it brings its own, a model."""

    id: str
    name: str
    persona: str
    model: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster(Document):
    """A roster with its agents, in order."""

    name: str
    description: str
    agents: tuple[RosterAgent, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool(Document):
    """The pool of agent slots at this moment."""

    capacity: int
    active: int
    available: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HaltChannel(Document):
    """One of the places where a halt is kept; out of reach counts as halted."""

    halted: bool
    reachable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt(Document):
    """Whether the system is halted, why and since when."""

    halted: bool
    reason: str | None
    since: str | None
    channels: Mapping[str, HaltChannel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive(Document):
    """The server answers."""

    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency(Document):
    """Whether something that the server needs works, and what to do where not."""

    works: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness(Document):
    """Whether the server can really work: `ready`, `unavailable` or `stopping`."""

    status: str
    halted: bool
    dependencies: Mapping[str, Dependency]

    @property
    def is_ready(self) -> bool:
        """Whether it can."""
        return self.status == "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry(Document):
    """An entry of the log: RFC 8785 canonical JSON, and SHA-256(0x00 || entry)."""

    index: int
    leaf_hash: str
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof(Document):
    """That an entry is in a tree (RFC 9162, section 2.1.3), from the leaf to the root."""

    index: int
    tree_size: int
    leaf_hash: str
    root_hash: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof(Document):
    """That a tree only grew out of an older one (RFC 9162, section 2.1.4)."""

    first: int
    second: int
    first_root: str
    second_root: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleEntry(Document):
    """An entry, and the proof that the checkpoint of the bundle covers it."""

    index: int
    entry: str
    inclusion_proof: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disclosure(Document):
    """A text that an entry commits to: SHA-256(salt || text in UTF-8)."""

    sha256: str
    salt: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle(Document):
    """Everything that verifies one deliberation without its server.

    Write `document` into a file and give that to `conclave witness verify FILE --key VKEY`: nothing is verified here.
    """

    version: int
    checkpoint: str
    public_key: str
    entries: tuple[BundleEntry, ...]
    disclosures: tuple[Disclosure, ...]
