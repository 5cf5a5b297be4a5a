"""What came out of a deliberation, and what it is worth, as schemas."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from api.requests import AnswerName, ProtocolName
from api.rest.schema_document import Document, Status

__all__ = [
    "Agents",
    "Answer",
    "Control",
    "Limits",
    "Outcome",
    "Protocol",
    "Quorum",
    "RollCall",
    "Round",
    "Rule",
    "Sampling",
    "Saved",
    "Statement",
    "Worth",
]


class Answer(Document):
    """The kind of answer, with its options, range or unit."""

    kind: AnswerName
    options: list[str] | None = Field(default=None, description="For choice, approval and ranking.")
    min: float | None = Field(default=None, description="For a score.")
    max: float | None = Field(default=None, description="For a score.")
    unit: str | None = Field(default=None, description="For a number.")


class Protocol(Document):
    """How many rounds, who is asked at one time, and who sees what of the others."""

    kind: ProtocolName
    wave_size: int | None = Field(
        default=None, description="Of a poll: agents asked at one time, where that is bounded."
    )
    max_rounds: int | None = Field(default=None, description="Of a delphi: revisions after the blind round, at most.")
    reviewers_per_answer: int | None = Field(default=None, description="Of a peer review: who reviews each answer.")
    rounds: int | None = Field(default=None, description="Of a debate: exchanges between the blind round and the vote.")
    neighbours: int | None = Field(default=None, description="Of a debate: how many others each one hears.")


class Rule(Document):
    """How ballots become an outcome."""

    kind: str
    fraction: float | None = Field(
        default=None, description="For a threshold the share of all asked, for a trimmed mean what is dropped a side."
    )
    tie_break: str | None = Field(default=None, description="What breaks a tie: lottery, or the kind of another rule.")
    strength: str | None = Field(default=None, description="Of pairwise wins: winning_votes or margins.")
    weighted_by: str | None = Field(default=None, description="What a ballot counts, where that is not one vote.")
    weights: dict[str, float] | None = Field(default=None, description="By agent, where the record weighs: its votes.")


class Agents(Document):
    """Who is asked."""

    roster: str = Field(description="The roster's name; empty where the request listed its members.")
    count: int


class Quorum(Document):
    """How many have to take part."""

    min_answered_fraction: float


class Limits(Document):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: float
    deadline_s: float
    max_attempts: int
    max_total_tokens: int
    max_cost_usd: float


class Sampling(Document):
    """How the models are sampled."""

    temperature: float
    max_output_tokens: int


class RollCall(Document):
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


class KeptBallot(Document):
    """An agent that did not take part in a round, and the round from which its ballot was kept in the tally."""

    agent_id: str
    from_round: int


class Saved(Document):
    """What a poll in waves did not spend, because it stopped when the others could not have changed the decision any more."""

    agents: int = Field(description="How many were not asked.")
    calls: int
    cost_usd: float = Field(description="What those who were asked cost on average, times how many were not.")


class Statement(Document):
    """A statement that a search for common ground came to, or chose among."""

    label: str
    agent_id: str = Field(description="Who drafted it.")
    round: int
    text: str | None = Field(description="Null once the texts are erased.")


class Round(Document):
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


class Position(Document):
    """A losing position: who holds it, and why."""

    answer: str
    count: int
    agents: list[str]
    reasons: list[str]


class Dissent(Document):
    """The minority report."""

    percentage: float | None = Field(description="Of those who answered; null without a decision.")
    positions: list[Position]


class Change(Document):
    """An agent that changed its answer after the blind round."""

    model_config = ConfigDict(extra="forbid", defer_build=True, validate_by_name=True, validate_by_alias=True)

    agent_id: str
    before: str = Field(alias="from")
    after: str = Field(alias="to")


class Robustness(Document):
    """How firmly the decision stands."""

    rules_agreeing: list[str]
    votes_to_flip: int | None


class Cluster(Document):
    """Agents whose texts say much the same."""

    name: str = Field(description="As it stands in the tally.")
    agents: list[str]
    representative: str = Field(description="The agent whose text is nearest to all of them.")


class Claim(Document):
    """One sentence of one agent's text, and all agents whose text says it."""

    cluster: str
    text: str | None = Field(description="Null once the texts are erased.")
    agents: list[str]
    source: str = Field(description="The agent whose words these are.")


class Synthesis(Document):
    """What texts come to: clusters, the largest first, and what is claimed in each. A claim without an agent does not stand here."""

    method: str = Field(description="What compared the texts.")
    chosen: str | None = Field(description="The cluster that decided.")
    clusters: list[Cluster]
    claims: list[Claim]


class Outcome(Document):
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


class DropOut(Document):
    """A model or persona group of which more is missing than of the others, and not by chance."""

    kind: Literal["model", "persona"]
    group: str
    missing: int
    asked: int
    missing_elsewhere: int
    asked_elsewhere: int
    p_value: float = Field(description="Fisher's exact test, corrected for the groups compared (Holm).")


class Winner(Document):
    """What one rule decides on the same ballots."""

    rule: str
    status: Literal["decided", "tied", "no_majority"]
    decision: str | float | None


class LeftOut(Document):
    """Leaving out one at a time: who is pivotal, and for estimates how far the result moves."""

    pivotal: list[str] = Field(description="Without one of these the status or the decision would be another.")
    low: float | None
    high: float | None


class WithoutOne(Document):
    """The result without one agent, one model or one persona group; null where there is none to compare, or too many."""

    agent: LeftOut | None
    model: LeftOut | None
    persona: LeftOut | None


class Flow(Document):
    """So many agents went from one answer to another."""

    model_config = ConfigDict(extra="forbid", defer_build=True, validate_by_name=True, validate_by_alias=True)

    before: str = Field(alias="from")
    after: str = Field(alias="to")
    count: int


class Movement(Document):
    """Who changed between the blind round and the last, and to whom."""

    changeable: int
    changed: int
    flows: list[Flow]
    blind_leader: str | None
    conformity: float | None = Field(description="The share of those who changed that went to the blind leader.")


class Division(Document):
    """How divided the answers are."""

    entropy_bits: float | None
    polarisation: float | None = Field(description="0 for one camp, 1 for two equal ones.")


class Divisions(Document):
    """In the blind round and in the end."""

    blind: Division
    final: Division


class EffectiveVotes(Document):
    """So many independent votes are these worth, with an interval of 95 %."""

    value: float | None = Field(description="Null where it cannot be known.")
    low: float
    high: float
    voters: int
    correlation: float | None
    questions: int
    basis: Literal["resolved", "answers", "one_question"]
    note: str


class MeasuredVotes(Document):
    """What earlier deliberations of these agents say, and what this one alone can say."""

    across: EffectiveVotes | None
    within: EffectiveVotes | None


class Copies(Document):
    """Agents that answer like each other more often than chance allows."""

    agents: list[str]
    agreement: float
    questions: int


class Agreement(Document):
    """The share on the largest position in the latest deliberations of these agents, oldest first."""

    shares: list[float]
    sustained: bool = Field(description="Above 90 % in ten in a row: the warning of groupthink.")


class Worth(Document):
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


class Control(Document):
    """One model, asked the same as often as all agents are called: a deliberation of its own."""

    deliberation_id: str
    model: str | None = Field(description="Null for the default one.")
    status: Status | None = Field(description="Null where it could not be accepted.")
    asked: int | None
    outcome_status: Literal["decided", "tied", "no_majority"] | None
    decision: str | float | None
    tally: dict[str, float] | None
