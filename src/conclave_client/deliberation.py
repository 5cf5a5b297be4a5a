"""A deliberation as the server shows it: what was asked of whom, and how far it has come.

Texts that were erased read as None. `at` and its like are RFC 3339; states and kinds are plain strings, because a newer server
may know more of them. The server describes the same documents in `api.rest`: a client stands alone and imports nothing of it, and a
test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conclave_client.document import Document
from conclave_client.outcome import Outcome
from conclave_client.worth import Worth

__all__ = [
    "AgentsAsked",
    "AnswerKind",
    "Control",
    "Deliberation",
    "Failure",
    "Fallback",
    "KeptBallot",
    "Limits",
    "Protocol",
    "Quorum",
    "RollCall",
    "Round",
    "Rule",
    "Sampling",
    "Saved",
    "Statement",
    "TokenUsage",
    "WitnessSpan",
]

_ENDED = frozenset({"completed", "inquorate", "cancelled", "halted", "failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerKind(Document):
    """The kind of answer with its options, range or unit."""

    kind: str
    options: tuple[str, ...] | None = None
    min: float | None = None
    max: float | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol(Document):
    """How many rounds there are, who is asked at one time, and who sees what of the others."""

    kind: str
    wave_size: int | None = None
    max_rounds: int | None = None
    reviewers_per_answer: int | None = None
    rounds: int | None = None
    neighbours: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Document):
    """How ballots become an outcome."""

    kind: str
    fraction: float | None = None
    tie_break: str | None = None
    strength: str | None = None
    weighted_by: str | None = None
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsAsked(Document):
    """Who is asked; `roster` is empty where the request listed its members."""

    roster: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum(Document):
    """The share of those asked that has to answer or abstain."""

    min_answered_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Document):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: float
    deadline_s: float
    max_attempts: int
    max_total_tokens: int
    max_cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling(Document):
    """How the models are sampled."""

    temperature: float
    max_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RollCall(Document):
    """How those asked ended; `asked` is the sum of the others."""

    asked: int
    answered: int
    abstained: int
    invalid: int
    timed_out: int
    throttled: int
    failed: int
    over_budget: int
    cancelled: int
    halted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBallot(Document):
    """An agent that took no part in a round, and the round whose ballot was kept in the tally."""

    agent_id: str
    from_round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Document):
    """One round's own roll call and tally; round 0 is blind."""

    round: int
    purpose: str
    kept: tuple[KeptBallot, ...]
    roll_call: RollCall
    tally: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved(Document):
    """What a poll in waves did not spend because it stopped early."""

    agents: int
    calls: int
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement(Document):
    """A statement that a search for common ground came to, or chose among."""

    label: str
    agent_id: str
    round: int
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control(Document):
    """One model, asked the same as often as all agents are called: a deliberation of its own."""

    deliberation_id: str
    model: str | None
    status: str | None
    asked: int | None
    outcome_status: str | None
    decision: str | float | None
    tally: Mapping[str, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure(Document):
    """An agent that neither answered nor abstained."""

    agent_id: str
    round: int
    state: str
    kind: str
    message: str | None
    attempts: int
    duration_seconds: float
    from_round: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback(Document):
    """An agent whose last call was made at another model of its route than the first."""

    agent_id: str
    round: int
    asked: str | None
    answered: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage(Document):
    """What calls took, failed attempts included."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_tokens: int
    uncertain_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessSpan(Document):
    """Where a deliberation's entries stand in the log, and the head that covers them."""

    first_index: int
    last_index: int
    tree_size: int
    root_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliberation(Document):
    """One question put to one roster, and what has come of it so far."""

    id: str
    status: str
    question: str | None
    context: str | None
    answer: AnswerKind
    protocol: Protocol
    rule: Rule
    agents: AgentsAsked
    quorum: Quorum
    limits: Limits
    sampling: Sampling
    metadata: Mapping[str, str]
    origin: str | None
    seed: int | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    orchestrator: str
    simulated: bool
    models: tuple[str, ...]
    reason: str | None
    cancel_requested: bool
    roll_call: RollCall
    rounds: tuple[Round, ...]
    saved: Saved | None
    statement: Statement | None
    statements: tuple[Statement, ...]
    outcome: Outcome | None
    control: Control | None
    worth: Worth | None
    failures: tuple[Failure, ...]
    fallbacks: tuple[Fallback, ...] | None
    usage: TokenUsage
    witness: WitnessSpan | None
    erased: bool

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.status in _ENDED

    @property
    def decision(self) -> str | float | None:
        """What was decided, None where nothing was."""
        return None if self.outcome is None else self.outcome.decision
