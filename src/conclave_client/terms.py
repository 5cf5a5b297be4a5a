"""What may be said about a deliberation besides its question, and the request that is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict

from conclave_client.errors import UnusableArgumentError

__all__ = [
    "AgentsTerms",
    "AnswerTerms",
    "ControlTerms",
    "LimitsTerms",
    "MemberTerms",
    "ProtocolTerms",
    "QuorumTerms",
    "RuleTerms",
    "SamplingTerms",
    "Terms",
    "request_body",
    "rule_body",
]


class AnswerTerms(TypedDict, total=False):
    """The kind of answer, with its options, range or unit."""

    kind: Required[str]
    options: Sequence[str]
    min: float
    max: float
    unit: str


class ProtocolTerms(TypedDict, total=False):
    """How many rounds, who is asked at one time, and who sees what of the others."""

    kind: Required[str]
    wave_size: int
    max_rounds: int
    reviewers_per_answer: int
    rounds: int
    neighbours: int


class RuleTerms(TypedDict, total=False):
    """How ballots become an outcome."""

    kind: str
    fraction: float
    tie_break: str
    strength: str
    weighted_by: str


class MemberTerms(TypedDict, total=False):
    """One agent that the request lists itself."""

    id: Required[str]
    persona: Required[str]
    model: str


class AgentsTerms(TypedDict, total=False):
    """A roster by name and how many of its agents to ask, or the agents themselves."""

    roster: str
    count: int
    members: Sequence[MemberTerms]


class QuorumTerms(TypedDict, total=False):
    """The share of those asked that has to answer or abstain."""

    min_answered_fraction: float


class LimitsTerms(TypedDict, total=False):
    """Bounds in seconds, attempts, tokens and US dollars."""

    agent_timeout_s: float
    deadline_s: float
    max_attempts: int
    max_total_tokens: int
    max_cost_usd: float


class SamplingTerms(TypedDict, total=False):
    """How the models are sampled."""

    temperature: float
    max_output_tokens: int


class ControlTerms(TypedDict, total=False):
    """The model that is asked alone, for comparison; the default one when it is not named."""

    model: str


class Terms(TypedDict, total=False):
    """Everything but the question, each with the server's default when left out.

    `options` alone make a choice. Short forms: the kind alone for `answer`, `protocol` and `rule`; for `agents` a count, a roster's
    name, or the members; for `quorum` the share.
    """

    context: str
    options: Sequence[str]
    answer: str | AnswerTerms
    protocol: str | ProtocolTerms
    rule: str | RuleTerms
    agents: int | str | Sequence[MemberTerms] | AgentsTerms
    quorum: float | QuorumTerms
    limits: LimitsTerms
    sampling: SamplingTerms
    metadata: Mapping[str, str]
    seed: int
    control: ControlTerms


def request_body(question: str, terms: Terms) -> dict[str, Any]:
    """The body of `POST /v1/deliberations`. Raises `TypeError` for a name that is none of the terms."""
    unknown = sorted(set(terms) - set(Terms.__annotations__))
    if unknown:
        raise TypeError(f"a deliberation has no {', '.join(unknown)}")
    body: dict[str, Any] = {"question": question, **terms}
    options = body.pop("options", None)
    answer = _kind(body.pop("answer", None))
    if options is not None:
        if isinstance(options, str):
            raise UnusableArgumentError("options", "is one text: give a list of them")
        answer = {"kind": "choice", **(answer or {}), "options": list(options)}
    if answer is not None:
        body["answer"] = answer
    for name, long_form in (("protocol", _kind), ("rule", _kind), ("agents", _agents), ("quorum", _quorum)):
        if name in body:
            body[name] = long_form(body[name])
    return body


def rule_body(rule: str | RuleTerms) -> Mapping[str, Any]:
    """The rule in a request."""
    return {"kind": rule} if isinstance(rule, str) else dict(rule)


def _kind(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


def _agents(value: Any) -> Any:
    if isinstance(value, int):
        return {"count": value}
    if isinstance(value, str):
        return {"roster": value}
    return value if isinstance(value, Mapping) else {"members": list(value)}


def _quorum(value: Any) -> Any:
    return {"min_answered_fraction": value} if isinstance(value, int | float) else value
