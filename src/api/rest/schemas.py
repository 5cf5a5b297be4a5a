"""The documents of the contract as schemas, for whoever writes or generates a client. Nothing is validated with them at work."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from api.requests import DeliberationRequest, RecountRequest, ResolutionRequest

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
    "Recount",
    "Resolution",
    "Roster",
    "RosterPage",
    "Run",
    "RunEvent",
    "RunPage",
    "RunRequest",
    "TrackRecord",
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
    """How many rounds, who is asked at one time, and who sees what of the others."""

    kind: Literal["poll", "delphi", "peer_review", "debate", "common_ground"]
    wave_size: int | None = Field(
        default=None, description="Of a poll: agents asked at one time, where that is bounded."
    )
    max_rounds: int | None = Field(default=None, description="Of a delphi: revisions after the blind round, at most.")
    reviewers_per_answer: int | None = Field(default=None, description="Of a peer review: who reviews each answer.")
    rounds: int | None = Field(default=None, description="Of a debate: exchanges between the blind round and the vote.")
    neighbours: int | None = Field(default=None, description="Of a debate: how many others each one hears.")


class Rule(_Document):
    """How ballots become an outcome."""

    kind: str
    fraction: float | None = Field(
        default=None, description="For a threshold the share of all asked, for a trimmed mean what is dropped a side."
    )
    tie_break: str | None = Field(default=None, description="What breaks a tie: lottery, or the kind of another rule.")
    strength: str | None = Field(default=None, description="Of pairwise wins: winning_votes or margins.")
    weighted_by: str | None = Field(default=None, description="What a ballot counts, where that is not one vote.")
    weights: dict[str, float] | None = Field(default=None, description="By agent, where the record weighs: its votes.")


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


class KeptBallot(_Document):
    """An agent that did not take part in a round, and the round from which its ballot was kept in the tally."""

    agent_id: str
    from_round: int


class Saved(_Document):
    """What a poll in waves did not spend, because it stopped when the others could not have changed the decision any more."""

    agents: int = Field(description="How many were not asked.")
    calls: int
    cost_usd: float = Field(description="What those who were asked cost on average, times how many were not.")


class Statement(_Document):
    """The statement that a search for common ground came to."""

    label: str
    agent_id: str = Field(description="Who drafted it.")
    round: int
    text: str | None = Field(description="Null once the texts are erased.")


class Round(_Document):
    """One round's own roll call and tally; round 0 is blind."""

    round: int
    purpose: Literal[
        "answer",
        "revise",
        "review",
        "position",
        "cross_examine",
        "vote",
        "draft",
        "rank",
        "critique",
        "redraft",
    ] = Field(description="What those asked were asked to do.")
    kept: list[KeptBallot] = Field(description="Who did not take part, and whose earlier ballot is in the tally.")
    roll_call: RollCall
    tally: dict[str, float]


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


class Cluster(_Document):
    """Agents whose texts say much the same."""

    name: str = Field(description="As it stands in the tally.")
    agents: list[str]
    representative: str = Field(description="The agent whose text is nearest to all of them.")


class Claim(_Document):
    """One sentence of one agent's text, and all agents whose text says it."""

    cluster: str
    text: str | None = Field(description="Null once the texts are erased.")
    agents: list[str]
    source: str = Field(description="The agent whose words these are.")


class Synthesis(_Document):
    """What texts come to: clusters, the largest first, and what is claimed in each. A claim without an agent does not stand here."""

    method: str = Field(description="What compared the texts.")
    chosen: str | None = Field(description="The cluster that decided.")
    clusters: list[Cluster]
    claims: list[Claim]


class Outcome(_Document):
    """What the rule made of the ballots."""

    status: Literal["decided", "tied", "no_majority"]
    decision: str | float | None = Field(description="Null unless decided.")
    rule: str
    tally: dict[str, float] = Field(
        description="Votes, points or wins, as the rule counts; first places where it gives none."
    )
    margin: float | None
    spread: float | None = Field(description="For estimates: the interquartile range.")
    dissent: Dissent
    blind_tally: dict[str, float]
    changed: list[Change]
    effective_votes: float | None = Field(
        description="How many independent votes they are worth, measured on earlier deliberations; null where that is not known."
    )
    robustness: Robustness
    ranking: list[str] | None = Field(
        default=None, description="For ranking and approval: the options, best first; who shares a place by name."
    )
    places: dict[str, int] | None = Field(default=None, description="The place of each option; ties share one.")
    tie_break: str | None = Field(default=None, description="What broke a tie, where there was one.")
    outliers: list[str] | None = Field(
        default=None, description="For estimates: agents far outside the middle half (Tukey's fences)."
    )
    synthesis: Synthesis | None = Field(default=None, description="For texts.")


class DropOut(_Document):
    """A model or persona group of which more is missing than of the others, and not by chance."""

    kind: Literal["model", "persona"]
    group: str
    missing: int
    asked: int
    missing_elsewhere: int
    asked_elsewhere: int
    p_value: float = Field(description="Fisher's exact test, corrected for the groups compared (Holm).")


class Winner(_Document):
    """What one rule decides on the same ballots."""

    rule: str
    status: Literal["decided", "tied", "no_majority"]
    decision: str | float | None


class LeftOut(_Document):
    """Leaving out one at a time: who is pivotal, and for estimates how far the result moves."""

    pivotal: list[str] = Field(description="Without one of these the status or the decision would be another.")
    low: float | None
    high: float | None


class WithoutOne(_Document):
    """The result without one agent, one model or one persona group; null where there is none to compare, or too many."""

    agent: LeftOut | None
    model: LeftOut | None
    persona: LeftOut | None


class Flow(_Document):
    """So many agents went from one answer to another."""

    model_config = ConfigDict(extra="forbid", defer_build=True, validate_by_name=True, validate_by_alias=True)

    before: str = Field(alias="from")
    after: str = Field(alias="to")
    count: int


class Movement(_Document):
    """Who changed between the blind round and the last, and to whom."""

    changeable: int
    changed: int
    flows: list[Flow]
    blind_leader: str | None
    conformity: float | None = Field(description="The share of those who changed that went to the blind leader.")


class Division(_Document):
    """How divided the answers are."""

    entropy_bits: float | None
    polarisation: float | None = Field(description="0 for one camp, 1 for two equal ones.")


class Divisions(_Document):
    """In the blind round and in the end."""

    blind: Division
    final: Division


class EffectiveVotes(_Document):
    """So many independent votes are these worth, with an interval of 95 %."""

    value: float | None = Field(description="Null where it cannot be known.")
    low: float
    high: float
    voters: int
    correlation: float | None
    questions: int
    basis: Literal["resolved", "answers", "one_question"]
    note: str


class MeasuredVotes(_Document):
    """What earlier deliberations of these agents say, and what this one alone can say."""

    across: EffectiveVotes | None
    within: EffectiveVotes | None


class Copies(_Document):
    """Agents that answer like each other more often than chance allows."""

    agents: list[str]
    agreement: float
    questions: int


class Agreement(_Document):
    """The share on the largest position in the latest deliberations of these agents, oldest first."""

    shares: list[float]
    sustained: bool = Field(description="Above 90 % in ten in a row: the warning of groupthink.")


class Worth(_Document):
    """What the result is worth: derived from the ballots, and from earlier ones of the same agents."""

    warnings: list[str] = Field(description="For a reader, the gravest first: that it is degraded, and why.")
    drop_out: list[DropOut]
    winners: list[Winner]
    without_one: WithoutOne
    movement: Movement | None = Field(description="Null where there was one round only.")
    division: Divisions
    effective_votes: MeasuredVotes
    copies: list[Copies]
    same_words: list[list[str]] = Field(description="Agents whose reasons are the same word for word.")
    agreement: Agreement


class Control(_Document):
    """One model, asked the same as often as all agents are called: a deliberation of its own."""

    deliberation_id: str
    model: str | None = Field(description="Null for the default one.")
    status: _Status | None = Field(description="Null where it could not be accepted.")
    asked: int | None
    outcome_status: Literal["decided", "tied", "no_majority"] | None
    decision: str | float | None
    tally: dict[str, float] | None


class Failure(_Document):
    """An agent that neither answered nor abstained, by name."""

    agent_id: str
    round: int
    state: _State
    kind: str
    message: str | None = Field(description="Null once the texts are erased.")
    attempts: int
    duration_seconds: float
    from_round: int | None = Field(
        description="The round from which its ballot was kept in the tally; null where it had none."
    )


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
    saved: Saved | None = Field(description="What a poll in waves saved by stopping early.")
    statement: Statement | None = Field(description="What a search for common ground came to.")
    outcome: Outcome | None = Field(description="Null unless completed.")
    control: Control | None = Field(description="Null unless the request wanted one.")
    worth: Worth | None = Field(description="What the result is worth. Null until it ended, and on a page.")
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
    topics: Topics | None = Field(
        default=None, description="Where topics came from lately, where CONCLAVE_WATCH_TOPICS is set."
    )


class Topics(_Document):
    """Where the topics of the last days came from."""

    days: int
    counts: dict[str, int] = Field(description="By origin.")
    warning: str | None = Field(description="Said once one source gives more than 30 % of at least 20 topics.")


class Recount(_Document):
    """What another rule makes of the recorded ballots."""

    deliberation_id: str
    rule: Rule
    outcome: Outcome | None = Field(description="Null where the deliberation was not completed.")
    leaf_index: int = Field(description="Where the log says so.")


class AgentScore(_Document):
    """One agent against the truth of this question, and its record over all that were resolved."""

    agent_id: str
    score: float | None = Field(
        description="0 for right and sure of it, 1 for wrong and sure of it; null without an answer."
    )
    questions: int
    weight: float = Field(description="What its vote counts where the record weighs.")


class ModelScore(_Document):
    """One model against the truth of this question, and its record over all that were resolved."""

    model: str
    score: float = Field(description="The mean over the agents that it answered for.")
    answers: int
    questions: int
    weight: float


class CalibrationBin(_Document):
    """The answers whose stated confidence lies between two bounds, and how many of them were right."""

    model_config = ConfigDict(populate_by_name=True)

    low: float = Field(alias="from")
    high: float = Field(alias="to")
    count: int
    stated: float | None = Field(description="The mean confidence.")
    right: float | None = Field(description="The share that was right.")


class Resolution(_Document):
    """How a question turned out, and how near everybody was."""

    deliberation_id: str
    answer: str | float | list[str]
    brier: float | None = Field(description="Of all answers together; null where that is not defined.")
    correct: bool | None = Field(description="Whether the decision is what turned out to be true.")
    error: float | None = Field(description="By how much a decision that is a number is greater than the truth.")
    agents: list[AgentScore]
    models: list[ModelScore]
    calibration: list[CalibrationBin]
    leaf_index: int = Field(description="Where the log says so.")


class Standing(_Document):
    """One agent or model over all questions that were resolved."""

    name: str
    questions: int
    score: float = Field(description="The mean; 0 for right and sure of it, 1 for wrong and sure of it.")
    skill: float = Field(description="1 for always right, 0 for as good as knowing nothing.")
    weight: float = Field(description="What its vote counts where the record weighs.")


class TrackRecord(_Document):
    """Who was right where the truth is known."""

    questions: int
    agents: list[Standing]
    models: list[Standing]
    calibration: list[CalibrationBin]


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
        Recount,
        Resolution,
        Roster,
        RosterPage,
        Run,
        RunEvent,
        RunPage,
        RunRequest,
        TrackRecord,
        UsagePage,
    )
    _, found = models_json_schema(
        [
            *((model, "validation") for model in (DeliberationRequest, RecountRequest, ResolutionRequest)),
            *((model, "validation") for model in answers),
        ],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = found["$defs"]
    return schemas
