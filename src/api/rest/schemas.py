"""The documents of the contract as schemas, for whoever writes or generates a client. Nothing is validated with them at work."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from api.requests import DeliberationRequest

__all__ = [
    "Alive",
    "Bundle",
    "ConsistencyProof",
    "Deliberation",
    "DeliberationPage",
    "Event",
    "Halt",
    "HaltReason",
    "InclusionProof",
    "LogEntry",
    "Output",
    "OutputPage",
    "Pool",
    "Problem",
    "Quote",
    "Readiness",
    "Roster",
    "RosterPage",
    "Run",
    "RunEvent",
    "RunPage",
    "RunRequest",
    "UsagePage",
    "component_schemas",
]

_Status = Literal["queued", "running", "completed", "inquorate", "cancelled", "halted", "failed"]
_State = Literal[
    "answered", "abstained", "invalid", "timed_out", "throttled", "failed", "over_budget", "cancelled", "halted"
]


class _Document(BaseModel):
    # Built only when somebody asks for the OpenAPI document, which most servers are never asked for.
    model_config = ConfigDict(extra="forbid", defer_build=True)


class Answer(_Document):
    """The kind of answer, with its options, range or unit."""

    kind: Literal["choice", "approval", "ranking", "verdict", "score", "probability", "number", "text"]
    options: list[str] | None = Field(default=None, description="For choice, approval and ranking.")
    min: float | None = Field(default=None, description="For a score.")
    max: float | None = Field(default=None, description="For a score.")
    unit: str | None = Field(default=None, description="For a number.")


class Protocol(_Document):
    """How many rounds, who is asked at one time."""

    kind: str
    wave_size: int | None = Field(default=None, description="Agents asked at one time, where that is bounded.")


class Rule(_Document):
    """How ballots become an outcome."""

    kind: str
    fraction: float | None = Field(default=None, description="For a threshold: the share of all asked.")


class Agents(_Document):
    """Who is asked."""

    roster: str = Field(description="The roster's name; empty where the request listed its members.")
    count: int


class Quorum(_Document):
    """How many have to take part."""

    min_answered_fraction: float


class Limits(_Document):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: float
    deadline_s: float
    max_attempts: int
    max_total_tokens: int
    max_cost_usd: float


class Sampling(_Document):
    """How the models are sampled."""

    temperature: float
    max_output_tokens: int


class RollCall(_Document):
    """How those asked ended; `asked` is the sum of the others, always."""

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


class Round(_Document):
    """One round's own roll call and tally; round 0 is blind."""

    round: int
    roll_call: RollCall
    tally: dict[str, int]


class Position(_Document):
    """A losing position: who holds it, and why."""

    answer: str
    count: int
    agents: list[str]
    reasons: list[str]


class Dissent(_Document):
    """The minority report."""

    percentage: float | None = Field(description="Of those who answered; null without a decision.")
    positions: list[Position]


class Change(_Document):
    """An agent that changed its answer after the blind round."""

    model_config = ConfigDict(extra="forbid", defer_build=True, validate_by_name=True, validate_by_alias=True)

    agent_id: str
    before: str = Field(alias="from")
    after: str = Field(alias="to")


class Robustness(_Document):
    """How firmly the decision stands."""

    rules_agreeing: list[str]
    votes_to_flip: int | None


class Outcome(_Document):
    """What the rule made of the ballots."""

    status: Literal["decided", "tied", "no_majority"]
    decision: str | float | None = Field(description="Null unless decided.")
    rule: str
    tally: dict[str, int]
    margin: int | None
    spread: float | None = Field(description="For estimates: the interquartile range.")
    dissent: Dissent
    blind_tally: dict[str, int]
    changed: list[Change]
    effective_votes: float | None
    robustness: Robustness


class Failure(_Document):
    """An agent that neither answered nor abstained, by name."""

    agent_id: str
    round: int
    state: _State
    kind: str
    message: str | None = Field(description="Null once the texts are erased.")
    attempts: int
    duration_seconds: float


class Usage(_Document):
    """What calls cost, failed attempts included."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_tokens: int = Field(description="Held at most by calls whose end nobody knows; not in the counts above.")
    uncertain_usd: float = Field(description="The same in US dollars; not in `cost_usd`.")


class Fallback(_Document):
    """An agent whose last call was made at another model of its route than the first."""

    agent_id: str
    round: int
    asked: str | None = Field(description="What the member names: a route, or a model.")
    answered: str | None = Field(description="Which model answered; null where none did.")


class WitnessSpan(_Document):
    """Where a deliberation's entries stand in the log, and the head that covers them."""

    first_index: int
    last_index: int
    tree_size: int
    root_hash: str = Field(description="In hex.")


class Deliberation(_Document):
    """One question put to one roster, and what has come of it so far."""

    id: str
    status: _Status
    question: str | None = Field(description="Null once its texts are erased.")
    context: str | None
    answer: Answer
    protocol: Protocol
    rule: Rule
    agents: Agents
    quorum: Quorum
    limits: Limits
    sampling: Sampling
    metadata: dict[str, str]
    seed: int | None
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    started_at: str | None = Field(json_schema_extra={"format": "date-time"})
    finished_at: str | None = Field(json_schema_extra={"format": "date-time"})
    orchestrator: str
    simulated: bool
    models: list[str] = Field(description="The models that answered.")
    reason: str | None = Field(description="Why it ended as it did, where that needs a reason.")
    cancel_requested: bool
    roll_call: RollCall
    rounds: list[Round]
    outcome: Outcome | None = Field(description="Null unless completed.")
    failures: list[Failure]
    fallbacks: list[Fallback] | None = Field(
        description="Who was asked at another model of the route than the first. Null on a page, which shows no rounds."
    )
    usage: Usage
    witness: WitnessSpan | None = Field(description="Where its record stands in the log, once it has one.")
    erased: bool = Field(description="Whether its texts were removed; what the log commits to stays.")


class DeliberationPage(_Document):
    """Some deliberations, newest first."""

    items: list[Deliberation]
    next_cursor: str | None = Field(description="Null on the last page.")


class OutputFailure(_Document):
    """Why an agent has no usable output."""

    kind: str
    message: str | None = Field(description="Null once the texts are erased.")
    attempts: int


class Output(_Document):
    """How one agent ended in one round."""

    agent_id: str
    round: int
    attempt: int
    state: _State
    content: str | None
    truncated: bool
    answer: str | float | list[str] | None
    confidence: float | None
    reasoning: str | None
    failure: OutputFailure | None
    started_at: str | None = Field(json_schema_extra={"format": "date-time"})
    finished_at: str | None = Field(json_schema_extra={"format": "date-time"})
    duration_seconds: float
    model_asked: str | None
    model: str | None = Field(description="The model that answered.")
    fell_back: bool = Field(description="Whether the last call was made at another model of the route than the first.")
    usage: Usage
    leaf_index: int = Field(description="The place of its entry in the log.")
    leaf_hash: str = Field(description="The hash of that entry, in hex.")
    erased: bool = Field(description="Whether its texts were removed.")


class OutputPage(_Document):
    """Every committed outcome, never cut."""

    items: list[Output]
    next_cursor: str | None


class Event(_Document):
    """The `data` of one server-sent event; its `id` is the sequence and its `event` the type."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    sequence: int = Field(ge=1)
    type: str
    at: str = Field(json_schema_extra={"format": "date-time"})
    deliberation_id: str


class LogEntry(_Document):
    """An entry of the log at its place."""

    index: int
    leaf_hash: str = Field(description="SHA-256(0x00 || entry), in hex.")
    entry: str = Field(description="RFC 8785 canonical JSON, as it was hashed.")


class InclusionProof(_Document):
    """That an entry is in a tree (RFC 9162, section 2.1.3); hashes in hex."""

    index: int
    tree_size: int
    leaf_hash: str
    root_hash: str
    hashes: list[str] = Field(description="From the leaf to the root.")


class ConsistencyProof(_Document):
    """That a tree grew out of an older one (RFC 9162, section 2.1.4); hashes in hex."""

    first: int
    second: int
    first_root: str
    second_root: str
    hashes: list[str]


class BundleEntry(_Document):
    """An entry and the proof that the bundle's checkpoint covers it."""

    index: int
    entry: str = Field(description="RFC 8785 canonical JSON, as it was hashed.")
    inclusion_proof: list[str] = Field(description="From the leaf to the root, in hex.")


class Disclosure(_Document):
    """A text that an entry commits to: SHA-256(salt || text in UTF-8)."""

    sha256: str = Field(description="In hex, as it stands in the entry.")
    salt: str = Field(description="16 bytes in hex.")
    text: str


class Bundle(_Document):
    """Everything that verifies one deliberation without this server: `conclave witness verify FILE --key VKEY`."""

    version: int
    checkpoint: str = Field(description="C2SP signed note.")
    public_key: str = Field(description="C2SP verifier key. Trust the one that you pinned, not this one.")
    entries: list[BundleEntry]
    disclosures: list[Disclosure]


class QuotedCount(_Document):
    """Calls, or tokens."""

    expected: int
    at_most: int


class QuotedCost(_Document):
    """US dollars; null where a model has no known price."""

    expected: float | None
    at_most: float | None


class Quote(_Document):
    """What a deliberation would take, before anything is spent. Expected is one call an agent with a typical answer."""

    calls: QuotedCount
    tokens: QuotedCount
    cost_usd: QuotedCost
    notices: list[str] = Field(description="What to know besides: unknown prices, limits below what is expected.")


class UsageItem(_Document):
    """What the calls of one deliberation, key, provider, model or day took."""

    key: str = Field(
        description="The id, the key's name, the provider, the model or the day (UTC). Empty where there is none: calls without a "
        "key, of a provider without a name, or of a model that nobody named."
    )
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_tokens: int = Field(description="Held at most by calls in flight, and by those whose end nobody knows.")
    uncertain_usd: float = Field(description="The same in US dollars; not in `cost_usd`.")


class UsagePage(_Document):
    """What calls took; deliberations and days newest first, the others dearest first."""

    items: list[UsageItem]


class RunRequest(_Document):
    """What to run."""

    kind: Literal["swarm", "pantheon", "soak", "population"]
    arguments: dict[str, Any] = Field(
        default_factory=dict,
        description="Those options of the command line that name neither code nor files, with `_` for `-`.",
    )


class Run(_Document):
    """A run, as it is recorded."""

    id: str
    kind: Literal["swarm", "pantheon", "soak", "population"]
    status: _Status
    started_at: str | None = Field(description="RFC 3339; null until its process has begun.")
    finished_at: str | None
    arguments: dict[str, Any] = Field(description="Those that were given, with the defaults of the others.")
    result: dict[str, Any] | None = Field(
        description="Its document, once it has ended; in a page null where it is large."
    )
    reason: str | None = Field(description="Why it ended as it did, where its result does not say so.")


class RunPage(_Document):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


class RunEvent(_Document):
    """One event of a run, the `data` of a server-sent event."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    sequence: int = Field(description="From 1, without gaps; also the event's `id`.")
    type: str = Field(description="`run.started`, what the work notes, and the terminal `run.completed` and its like.")
    at: str = Field(description="RFC 3339.")
    run_id: str


class RosterEntry(_Document):
    """A roster in the list."""

    name: str
    description: str
    count: int


class RosterPage(_Document):
    """Every roster there is."""

    items: list[RosterEntry]
    next_cursor: str | None


class RosterAgent(_Document):
    """One voice: an id, a viewpoint and, when it brings its own, a model."""

    id: str
    name: str
    persona: str
    model: str | None


class Roster(_Document):
    """A roster with its agents, in order."""

    name: str
    description: str
    agents: list[RosterAgent]


class Pool(_Document):
    """The pool of agent slots at this moment."""

    capacity: int
    active: int
    available: int
    waiting: int


class Alive(_Document):
    """The server answers."""

    status: Literal["ok"]


class Dependency(_Document):
    """Whether something the server needs works, and what to do when not."""

    works: bool
    detail: str


class Readiness(_Document):
    """Whether the server can really work, each dependency by name."""

    status: Literal["ready", "unavailable", "stopping"]
    halted: bool = Field(description="No agent is called; everything can be read.")
    dependencies: dict[str, Dependency]


class HaltReason(_Document):
    """Why to halt, or why to end the halt."""

    reason: str = Field(min_length=1, max_length=1000, description="The log commits to it for ever.")


class HaltChannel(_Document):
    """One of the places where a halt is kept."""

    halted: bool = Field(description="Set, or out of reach: then the worse is taken for true.")
    reachable: bool


class Halt(_Document):
    """Whether the system is halted."""

    halted: bool = Field(description="No agent is called: a channel is set, or one cannot be read.")
    reason: str | None
    since: str | None = Field(description="RFC 3339.")
    channels: dict[str, HaltChannel]


class FieldError(_Document):
    """One field that cannot be accepted."""

    pointer: str = Field(description="Where it is (RFC 6901): in the body, or `/query/...` or `/header/...`.")
    detail: str


class Problem(_Document):
    """Why a request was refused (RFC 9457)."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    type: str = Field(description="`urn:conclave:problem:` and what kind of problem it is.")
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field(default_factory=list, description="For a 422: every bad field.")
    further_errors: int = Field(default=0, description="How many more bad fields there are than are listed.")
    state: str | None = Field(default=None, description="For a 409: the present state of the deliberation or run.")


def component_schemas() -> dict[str, Any]:
    """Every schema that the OpenAPI document refers to, by name."""
    answers = (
        Alive,
        Bundle,
        ConsistencyProof,
        Deliberation,
        DeliberationPage,
        Event,
        Halt,
        HaltReason,
        InclusionProof,
        LogEntry,
        Output,
        OutputPage,
        Pool,
        Problem,
        Quote,
        Readiness,
        Roster,
        RosterPage,
        Run,
        RunEvent,
        RunPage,
        RunRequest,
        UsagePage,
    )
    _, found = models_json_schema(
        [(DeliberationRequest, "validation"), *((model, "validation") for model in answers)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
