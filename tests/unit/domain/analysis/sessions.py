"""Deliberations that have ended, from what each agent answered in each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from domain.analysis.decision import decide
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from domain.voting.rule import Rule, default_rule

__all__ = ["CHOICE", "GONE", "held"]

GONE = "GONE"
"""Stands for an agent that did not take part."""

CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "later"))
_AT = datetime(2026, 5, 4, 12, tzinfo=UTC)


def held(
    *rounds: Sequence[Answer],
    answer: AnswerFormat = CHOICE,
    rule: Rule | None = None,
    models: Sequence[str | None] = ("m",),
    personas: Sequence[str] = (),
    reasons: Mapping[int, str] | None = None,
    minute: int = 0,
    status: DeliberationStatus = DeliberationStatus.COMPLETED,
) -> Deliberation:
    """A deliberation in which agent `a0` gave the first answer of each round, and so on; models and personas in turn."""
    count = len(rounds[0])
    agents = [
        Agent(f"a{n}", Persona(personas[n % len(personas)] if personas else f"Persona {n}."), models[n % len(models)])
        for n in range(count)
    ]
    protocol = Protocol(ProtocolKind.DELPHI if len(rounds) > 1 else ProtocolKind.POLL)
    asked = Specification(
        Question("Should we?", None, answer),
        Roster.assemble("few", agents),
        rule or default_rule(answer.kind),
        protocol,
    )
    accepted = Deliberation.accept(asked, at=_AT, orchestrator="stub", simulated=True, key_name=None)
    running = accepted.start(at=_AT)
    records = [
        _record(number, agent, given, (reasons or {}).get(place))
        for number, answers in enumerate(rounds)
        for place, (agent, given) in enumerate(zip(agents, answers, strict=True))
    ]
    whole, outcome = decide(running, records)
    is_completed = status is DeliberationStatus.COMPLETED
    ended_at = _AT + timedelta(minutes=minute)
    return running.end(status, at=ended_at, rounds=whole, outcome=outcome if is_completed else None)


def _record(number: int, agent: Agent, given: Answer, reason: str | None) -> AgentRecord:
    state = AgentState.ABSTAINED if given is None else AgentState.ANSWERED
    if given == GONE:
        failure = FailureCause("agent_timeout", "no answer in time")
        return AgentRecord(
            number, agent.id, AgentState.TIMED_OUT, 1, None, _AT, failure=failure, model_asked=agent.model
        )
    return AgentRecord(
        number,
        agent.id,
        state,
        1,
        None,
        _AT,
        answer=given,
        reasoning=reason,
        model=agent.model,
        model_asked=agent.model,
    )
