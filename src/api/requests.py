"""The request to deliberate, as REST and the command line take it, and its way into the domain.

Longer than most files because each field stands once: its type, its bound, its description and what is made of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.request_bounds import ANSWER_BOUNDS, above, between, entries, texts_by_name, up_to
from api.request_shape import Misshapen, problems_of
from application.ports.roster_source import RosterSource
from domain.errors.deliberation import FieldProblem, InvalidRosterError, InvalidSpecificationError, RosterNotFoundError
from domain.models.agent import MAX_AGENT_ID_BYTES, MAX_MODEL_BYTES, Agent, Persona, Roster
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.budget import LIMITS_BOUNDS, QUORUM_BOUNDS, SAMPLING_BOUNDS, Limits, Quorum, Sampling
from domain.models.control import Control
from domain.models.deliberation import MAX_METADATA, MAX_METADATA_BYTES, SEED_BOUNDS, Specification
from domain.models.protocol import SETTING_BOUNDS, Protocol, ProtocolKind
from domain.models.question import MAX_OPTIONS, MAX_UNIT_BYTES, AnswerFormat, AnswerKind, Question
from domain.models.text import MAX_CONTEXT_BYTES, MAX_OPTION_BYTES, MAX_PERSONA_BYTES, MAX_QUESTION_BYTES
from domain.models.topic import TopicOrigin
from domain.protocols.round_format import counted_answers
from domain.voting.rule import FRACTION_BOUNDS, NO_TIE_BREAK, Rule, RuleKind, applicable, default_rule

__all__ = [
    "DEFAULT_ROSTER",
    "AnswerName",
    "DeliberationRequest",
    "ProtocolName",
    "RecountRequest",
    "ResolutionRequest",
    "RuleName",
]

DEFAULT_ROSTER = "archons"

# Written out, because a strict model takes no text for a member of an enumeration.
AnswerName = Literal["choice", "approval", "ranking", "verdict", "score", "probability", "number", "text"]
ProtocolName = Literal["poll", "delphi", "peer_review", "debate", "common_ground"]
RuleName = Literal[
    "plurality",
    "threshold",
    "approval",
    "borda",
    "copeland",
    "schulze",
    "minimax",
    "irv",
    "median",
    "trimmed_mean",
    "mean_odds",
    "synthesis",
]

# What every reader of JSON reads as the number that was written.
_SEED_BITS = 53
# How many of a kind are looked at one by one; how many may be asked for, the domain says.
_MAX_LISTED = 1000


def _draw_seed() -> int:
    return secrets.randbits(_SEED_BITS)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class AnswerRequest(_Part):
    """The kind of answer, with its options (2 to 50), range or unit. Without it: a verdict."""

    model_config = ConfigDict(json_schema_extra=dict(ANSWER_BOUNDS))

    kind: AnswerName = "verdict"
    options: list[Annotated[str, up_to(MAX_OPTION_BYTES)]] = Field(
        default_factory=list, max_length=_MAX_LISTED, json_schema_extra={"maxItems": MAX_OPTIONS}
    )
    min: float | None = None
    max: float | None = None
    unit: Annotated[str, up_to(MAX_UNIT_BYTES)] | None = None


class ProtocolRequest(_Part):
    """How many rounds, who is asked at one time, and who sees what of the others."""

    kind: ProtocolName = "poll"
    wave_size: Annotated[int, between(SETTING_BOUNDS["wave_size"])] | None = Field(
        default=None,
        description="For a poll: so many are asked at one time, and nobody any more once the others could not change the decision.",
    )
    max_rounds: Annotated[int, between(SETTING_BOUNDS["max_rounds"])] | None = Field(
        default=None, description="For a delphi: the revisions after the blind round, at most 9 (3)."
    )
    reviewers_per_answer: Annotated[int, between(SETTING_BOUNDS["reviewers_per_answer"])] | None = Field(
        default=None, description="For a peer review: how many review each answer (3)."
    )
    rounds: Annotated[int, between(SETTING_BOUNDS["rounds"])] | None = Field(
        default=None, description="For a debate: the exchanges between the blind round and the vote, at most 8 (2)."
    )
    neighbours: Annotated[int, between(SETTING_BOUNDS["neighbours"])] | None = Field(
        default=None, description="For a debate: how many others each one hears (4)."
    )


class RuleRequest(_Part):
    """How ballots become an outcome; without it the default rule of the answer's kind."""

    kind: RuleName | None = Field(default=None, description="Without it the default rule of the answer's kind.")
    fraction: Annotated[float, above(FRACTION_BOUNDS)] | None = Field(
        default=None,
        description="For threshold the share of all asked that decides (0.5), for trimmed_mean what is dropped a side (0.1).",
    )
    tie_break: str | None = Field(
        default=None, description="What breaks a tie: none (as without it), lottery, or the kind of another rule."
    )
    strength: Literal["winning_votes", "margins"] | None = Field(
        default=None, description="For schulze and minimax: how strong a pairwise win is; else winning_votes."
    )
    weighted_by: Literal["confidence", "record"] | None = Field(
        default=None,
        description="A ballot counts its agent's confidence, one that says none a half; or by the record what was learned of its agent "
        "where questions were resolved; else each counts one.",
    )

    def of(self, answer: AnswerFormat) -> Rule:
        """The rule for answers of that format, not yet checked."""
        kind = default_rule(answer.kind).kind if self.kind is None else RuleKind(self.kind)
        usual = next((rule.fraction for rule in applicable(answer) if rule.kind is kind), None)
        fraction = usual if self.fraction is None else self.fraction
        tie_break = None if self.tie_break == NO_TIE_BREAK else self.tie_break
        return Rule(kind, fraction, tie_break, self.strength, self.weighted_by)


class RecountRequest(_Part):
    """By which rule to count the recorded ballots again."""

    rule: RuleRequest

    @classmethod
    def read(cls, body: object) -> RecountRequest:
        """The request in a parsed JSON document. Raises `InvalidSpecificationError` naming every field that is off."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise InvalidSpecificationError(problems_of(error)) from None


class ResolutionRequest(_Part):
    """How the question turned out: an option, a list of them, `yes` or `no`, or a number, as suits its kind of answer."""

    answer: str | float | bool | list[str]

    @classmethod
    def read(cls, body: object) -> ResolutionRequest:
        """The request in a parsed JSON document. Raises `InvalidSpecificationError` naming every field that is off."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            found = problems_of(error)
            problems = [problem for problem in found if not problem.pointer.startswith("/answer")]
            if any(each["type"] == "missing" for each in error.errors()):
                problems.append(FieldProblem("/answer", "Field required"))
            elif len(problems) < len(found):
                # Which of the kinds of an answer it is not, concerns nobody.
                problems.append(FieldProblem("/answer", "must be an option, a list of options, yes, no or a number"))
            raise InvalidSpecificationError(problems) from None


class MemberRequest(_Part):
    """One agent of a roster that the request lists itself."""

    id: Annotated[str, up_to(MAX_AGENT_ID_BYTES)]
    persona: Annotated[str, up_to(MAX_PERSONA_BYTES)]
    model: Annotated[str, up_to(MAX_MODEL_BYTES)] | None = None


class AgentsRequest(_Part):
    """A roster by name and how many of its agents to ask, or the agents themselves."""

    roster: str | None = None
    count: Annotated[int, Field(ge=1, le=MAX_CONCURRENT_AGENTS)] | None = None
    members: Annotated[list[MemberRequest], entries(1, MAX_CONCURRENT_AGENTS, looked_at=_MAX_LISTED)] | None = None


class QuorumRequest(_Part):
    """The share of those asked that has to answer or abstain."""

    min_answered_fraction: Annotated[float, between(QUORUM_BOUNDS["min_answered_fraction"])] = (
        Quorum().min_answered_fraction
    )


class LimitsRequest(_Part):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: Annotated[float, between(LIMITS_BOUNDS["agent_timeout_s"])] = Limits().agent_timeout_s
    deadline_s: Annotated[float, between(LIMITS_BOUNDS["deadline_s"])] = Limits().deadline_s
    max_attempts: Annotated[int, between(LIMITS_BOUNDS["max_attempts"])] = Limits().max_attempts
    max_total_tokens: Annotated[int, between(LIMITS_BOUNDS["max_total_tokens"])] = Limits().max_total_tokens
    max_cost_usd: Annotated[float, between(LIMITS_BOUNDS["max_cost_usd"])] = Limits().max_cost_usd


class SamplingRequest(_Part):
    """How the models are sampled."""

    temperature: Annotated[float, between(SAMPLING_BOUNDS["temperature"])] = Sampling().temperature
    max_output_tokens: Annotated[int, between(SAMPLING_BOUNDS["max_output_tokens"])] = Sampling().max_output_tokens


class ControlRequest(_Part):
    """The model that is asked alone; the default one when it is not named."""

    model: Annotated[str, up_to(MAX_MODEL_BYTES)] | None = None


class DeliberationRequest(_Part):
    """One question to put to a roster. Everything but the question has a default."""

    question: Annotated[str, up_to(MAX_QUESTION_BYTES)]
    context: Annotated[str, up_to(MAX_CONTEXT_BYTES, least=0)] | None = None
    answer: AnswerRequest = Field(default_factory=AnswerRequest)
    protocol: ProtocolRequest = Field(default_factory=ProtocolRequest)
    rule: RuleRequest | None = None
    agents: AgentsRequest = Field(default_factory=AgentsRequest)
    quorum: QuorumRequest = Field(default_factory=QuorumRequest)
    limits: LimitsRequest = Field(default_factory=LimitsRequest)
    sampling: SamplingRequest = Field(default_factory=SamplingRequest)
    metadata: dict[str, str] = Field(
        default_factory=dict,
        max_length=_MAX_LISTED,
        json_schema_extra=texts_by_name(MAX_METADATA, max_bytes=MAX_METADATA_BYTES),
    )
    seed: Annotated[int, between(SEED_BOUNDS)] | None = None
    control: ControlRequest | None = Field(
        default=None, description="Ask one model the same as often as all agents are called, and show that beside."
    )

    @classmethod
    def read(cls, body: object, rosters: RosterSource) -> DeliberationRequest:
        """The request in a parsed JSON document.

        Raises `InvalidSpecificationError` where a field has a wrong type, is missing or unknown. It then names every field that is off,
        also those that only `specification` would refuse.
        """
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            if not isinstance(body, Mapping):
                raise InvalidSpecificationError(problems_of(error)) from None
            misshapen = Misshapen(body, error)
        try:
            _, problems = cls.model_validate(misshapen.rest)._drawn_up(rosters, _draw_seed)
        except (InvalidRosterError, ValidationError):
            # A broken roster file is not the caller's doing, and names that are no text stand elsewhere than they are said to.
            problems = []
        raise InvalidSpecificationError(misshapen.problems(problems))

    def specification(self, rosters: RosterSource, *, draw_seed: Callable[[], int] = _draw_seed) -> Specification:
        """What is to be run, checked. A lottery that was given no seed gets one, for the record. Raises `InvalidSpecificationError`."""
        specification, problems = self._drawn_up(rosters, draw_seed)
        if problems:
            raise InvalidSpecificationError(problems)
        return specification

    def _drawn_up(
        self, rosters: RosterSource, draw_seed: Callable[[], int]
    ) -> tuple[Specification, list[FieldProblem]]:
        """What is to be run, and all that keeps it from it."""
        answer = AnswerFormat(
            AnswerKind(self.answer.kind), tuple(self.answer.options), self.answer.min, self.answer.max, self.answer.unit
        )
        roster, problems = self._roster(rosters)
        protocol = Protocol(**{**self.protocol.model_dump(), "kind": ProtocolKind(self.protocol.kind)})
        rule = self._rule(counted_answers(protocol, answer, len(roster.agents)))
        specification = Specification(
            question=Question(self.question, self.context or None, answer),
            roster=roster,
            rule=rule,
            protocol=protocol,
            quorum=Quorum(self.quorum.min_answered_fraction),
            limits=Limits(**self.limits.model_dump()),
            sampling=Sampling(**self.sampling.model_dump()),
            metadata=self.metadata,
            control=None if self.control is None else Control(self.control.model),
            seed=draw_seed() if rule.needs_seed and self.seed is None else self.seed,
            origin=TopicOrigin.API.value,
        )
        return specification, [*specification.problems(), *problems]

    def _rule(self, answer: AnswerFormat) -> Rule:
        return default_rule(answer.kind) if self.rule is None else self.rule.of(answer)

    def _roster(self, rosters: RosterSource) -> tuple[Roster, list[FieldProblem]]:
        """Who is asked, and what keeps them from it; then the roster is one that the other parts can be judged with."""
        agents = self.agents
        if agents.members is not None:
            members = [Agent(member.id, Persona(member.persona), member.model) for member in agents.members]
            problems = []
            if agents.roster is not None or agents.count is not None:
                problems.append(FieldProblem("/agents", "takes either members, or a roster and a count"))
            try:
                return Roster.assemble("", members, pointer="/agents/members"), problems
            except InvalidSpecificationError as error:
                return Roster("", tuple(members)), [*problems, *error.problems]
        try:
            roster = rosters.get(agents.roster if agents.roster is not None else DEFAULT_ROSTER)
        except RosterNotFoundError as error:
            problem = f"is not known; there is {', '.join(error.known)}"
            return Roster("", ()), [FieldProblem("/agents/roster", problem)]
        if agents.count is None:
            return roster, []
        if agents.count > len(roster.agents):
            return roster, [FieldProblem("/agents/count", f"the roster has {len(roster.agents)} agents")]
        return roster.first(agents.count), []
