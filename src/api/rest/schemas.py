"""The documents of the contract as schemas, for whoever writes or generates a client. Nothing is validated with them at work."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field
from pydantic.json_schema import models_json_schema

from api.requests import DeliberationRequest, RecountRequest, ResolutionRequest
from api.rest.hindsight_schemas import Recount, Resolution, TrackRecord
from api.rest.record_schemas import Bundle, ConsistencyProof, InclusionProof, LogEntry, WebhookKeys
from api.rest.result_schemas import (
    Agents,
    Answer,
    Control,
    Limits,
    Outcome,
    Protocol,
    Quorum,
    RollCall,
    Round,
    Rule,
    Sampling,
    Saved,
    Statement,
    Worth,
)
from api.rest.run_schemas import Run, RunEvent, RunPage, RunRequest
from api.rest.schema_document import Document, State, Status
from api.rest.service_schemas import Alive, Halt, HaltReason, Pool, Readiness, Roster, RosterPage

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
    "WebhookDelivery",
    "component_schemas",
]


class Failure(Document):
    """An agent that neither answered nor abstained, by name."""

    agent_id: str
    round: int
    state: State
    kind: str
    message: str | None = Field(description="Null once the texts are erased.")
    attempts: int
    duration_seconds: float
    from_round: int | None = Field(
        description="The round from which its ballot was kept in the tally; null where it had none."
    )


class Usage(Document):
    """What calls cost, failed attempts included."""

    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    uncertain_tokens: int = Field(description="Held at most by calls whose end nobody knows; not in the counts above.")
    uncertain_usd: float = Field(description="The same in US dollars; not in `cost_usd`.")


class Fallback(Document):
    """An agent whose last call was made at another model of its route than the first."""

    agent_id: str
    round: int
    asked: str | None = Field(description="What the member names: a route, or a model.")
    answered: str | None = Field(description="Which model answered; null where none did.")


class WitnessSpan(Document):
    """Where a deliberation's entries stand in the log, and the head that covers them."""

    first_index: int
    last_index: int
    tree_size: int
    root_hash: str = Field(description="In hex.")


class Deliberation(Document):
    """One question put to one roster, and what has come of it so far."""

    id: str
    status: Status
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
    origin: str | None = Field(description="Where the topic came from. Null once its texts are erased.")
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
    statements: list[Statement] = Field(
        description="What a search for common ground put to everybody last, by the labels of the tally. Empty on a page."
    )
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


class DeliberationPage(Document):
    """Some deliberations, newest first."""

    items: list[Deliberation]
    next_cursor: str | None = Field(description="Null on the last page.")
    topics: Topics | None = Field(
        default=None, description="Where topics came from lately, where CONCLAVE_WATCH_TOPICS is set."
    )


class Topics(Document):
    """Where the topics of the last days came from."""

    days: int
    counts: dict[str, int] = Field(description="By origin.")
    warning: str | None = Field(description="Said once one source gives more than 30 % of at least 20 topics.")


class OutputFailure(Document):
    """Why an agent has no usable output."""

    kind: str
    message: str | None = Field(description="Null once the texts are erased.")
    attempts: int


class Output(Document):
    """How one agent ended in one round."""

    agent_id: str
    round: int
    attempt: int
    state: State
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


class OutputPage(Document):
    """Every committed outcome, never cut."""

    items: list[Output]
    next_cursor: str | None


class Event(Document):
    """The `data` of one server-sent event; its `id` is the sequence and its `event` the type."""

    model_config = ConfigDict(extra="allow", defer_build=True)

    sequence: int = Field(ge=1)
    type: str
    at: str = Field(json_schema_extra={"format": "date-time"})
    deliberation_id: str


class QuotedCount(Document):
    """Calls, or tokens."""

    expected: int
    at_most: int


class QuotedCost(Document):
    """US dollars; null where a model has no known price."""

    expected: float | None
    at_most: float | None


class Quote(Document):
    """What a deliberation would take, before anything is spent. Expected is one call an agent with a typical answer."""

    calls: QuotedCount
    tokens: QuotedCount
    cost_usd: QuotedCost
    notices: list[str] = Field(description="What to know besides: unknown prices, limits below what is expected.")


class UsageItem(Document):
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


class UsagePage(Document):
    """What calls took; deliberations and days newest first, the others dearest first."""

    items: list[UsageItem]


class WebhookDelivery(Document):
    """What a webhook is sent: how a deliberation ended."""

    type: str = Field(description="The terminal event: `deliberation.completed` and its like.")
    at: str = Field(json_schema_extra={"format": "date-time"})
    deliberation_id: str
    deliberation: Deliberation


class FieldError(Document):
    """One field that cannot be accepted."""

    pointer: str = Field(description="Where it is (RFC 6901): in the body, or `/query/...` or `/header/...`.")
    detail: str


class Problem(Document):
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
        WebhookDelivery,
        WebhookKeys,
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
