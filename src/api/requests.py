"""The request to deliberate, as REST and the command line take it, and its way into the domain."""

from __future__ import annotations

import itertools
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from application.ports.roster_source import RosterSource
from domain.errors.deliberation import FieldProblem, InvalidSpecificationError, RosterNotFoundError
from domain.models.agent import Agent, Persona, Roster
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.budget import Limits, Quorum, Sampling
from domain.models.deliberation import Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.voting.rule import Rule, RuleKind, default_rule, rules_for

__all__ = ["DEFAULT_ROSTER", "DeliberationRequest", "problems_of"]

DEFAULT_ROSTER = "archons"

_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class AnswerRequest(_Part):
    """The kind of answer, with its options (2 to 50), range or unit. Without it: a verdict."""

    kind: Literal["choice", "approval", "ranking", "verdict", "score", "probability", "number", "text"] = "verdict"
    options: list[str] = Field(default_factory=list, max_length=1000)
    min: float | None = None
    max: float | None = None
    unit: str | None = None


class ProtocolRequest(_Part):
    """How many rounds, who is asked at one time."""

    kind: Literal["poll"] = "poll"
    wave_size: int | None = None


class RuleRequest(_Part):
    """How ballots become an outcome; without it the default rule of the answer's kind."""

    kind: Literal["plurality", "threshold", "median"]
    fraction: float | None = None


class MemberRequest(_Part):
    """One agent of a roster that the request lists itself."""

    id: str
    persona: str
    model: str | None = None


class AgentsRequest(_Part):
    """A roster by name and how many of its agents to ask, or the agents themselves."""

    roster: str | None = None
    count: Annotated[int, Field(ge=1, le=MAX_CONCURRENT_AGENTS)] | None = None
    members: list[MemberRequest] | None = Field(default=None, min_length=1, max_length=MAX_CONCURRENT_AGENTS)


class QuorumRequest(_Part):
    """The share of those asked that has to answer or abstain."""

    min_answered_fraction: float = Quorum().min_answered_fraction


class LimitsRequest(_Part):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: float = Limits().agent_timeout_s
    deadline_s: float = Limits().deadline_s
    max_attempts: int = Limits().max_attempts
    max_total_tokens: int = Limits().max_total_tokens
    max_cost_usd: float = Limits().max_cost_usd


class SamplingRequest(_Part):
    """How the models are sampled."""

    temperature: float = Sampling().temperature
    max_output_tokens: int = Sampling().max_output_tokens


class DeliberationRequest(_Part):
    """One question to put to a roster. Everything but the question has a default."""

    question: str
    context: str | None = None
    answer: AnswerRequest = Field(default_factory=AnswerRequest)
    protocol: ProtocolRequest = Field(default_factory=ProtocolRequest)
    rule: RuleRequest | None = None
    agents: AgentsRequest = Field(default_factory=AgentsRequest)
    quorum: QuorumRequest = Field(default_factory=QuorumRequest)
    limits: LimitsRequest = Field(default_factory=LimitsRequest)
    sampling: SamplingRequest = Field(default_factory=SamplingRequest)
    metadata: dict[str, str] = Field(default_factory=dict)
    seed: int | None = None

    @classmethod
    def read(cls, body: object) -> DeliberationRequest:
        """The request in a parsed JSON document. Raises `InvalidSpecificationError` naming every field that is off."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise InvalidSpecificationError(problems_of(error)) from None

    def specification(self, rosters: RosterSource) -> Specification:
        """What is to be run, checked. Raises `InvalidSpecificationError`."""
        answer = AnswerFormat(
            AnswerKind(self.answer.kind), tuple(self.answer.options), self.answer.min, self.answer.max, self.answer.unit
        )
        specification = Specification(
            question=Question(self.question, self.context or None, answer),
            roster=self._roster(rosters),
            rule=self._rule(answer),
            protocol=Protocol(ProtocolKind(self.protocol.kind), self.protocol.wave_size),
            quorum=Quorum(self.quorum.min_answered_fraction),
            limits=Limits(**self.limits.model_dump()),
            sampling=Sampling(**self.sampling.model_dump()),
            metadata=self.metadata,
            seed=self.seed,
        )
        specification.check()
        return specification

    def _rule(self, answer: AnswerFormat) -> Rule:
        default = default_rule(answer.kind)
        if self.rule is None:
            if default is None:
                raise InvalidSpecificationError.at(
                    "/answer/kind", f"answers of kind {answer.kind.value} cannot be counted yet"
                )
            return default
        kind = RuleKind(self.rule.kind)
        fraction = self.rule.fraction
        if kind is RuleKind.THRESHOLD and fraction is None and kind in rules_for(answer.kind):
            fraction = 0.5
        return Rule(kind, fraction)

    def _roster(self, rosters: RosterSource) -> Roster:
        agents = self.agents
        if agents.members is not None:
            if agents.roster is not None or agents.count is not None:
                raise InvalidSpecificationError.at("/agents", "takes either members, or a roster and a count")
            members = [Agent(member.id, Persona(member.persona), member.model) for member in agents.members]
            return Roster.assemble("", members, pointer="/agents/members")
        try:
            roster = rosters.get(agents.roster if agents.roster is not None else DEFAULT_ROSTER)
        except RosterNotFoundError as error:
            raise InvalidSpecificationError.at(
                "/agents/roster", f"is not known; there is {', '.join(error.known)}"
            ) from None
        if agents.count is None:
            return roster
        if agents.count > len(roster.agents):
            raise InvalidSpecificationError.at("/agents/count", f"the roster has {len(roster.agents)} agents")
        return roster.first(agents.count)


def problems_of(error: ValidationError) -> list[FieldProblem]:
    """Where and why, as JSON pointers (RFC 6901), without the refused values.

    A name that no field could have is not repeated either: the pointer then ends where it stands.
    """
    problems = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        steps = [str(step) for step in found["loc"]]
        shown = list(itertools.takewhile(_NAME.fullmatch, steps))
        message = "is not a field of this request" if found["type"] == "extra_forbidden" else found["msg"]
        if len(shown) < len(steps):
            message = (
                f"has a field whose value {message}" if found["type"] != "extra_forbidden" else "has an unknown field"
            )
        problems.append(FieldProblem("".join(f"/{step}" for step in shown), message))
    return problems
