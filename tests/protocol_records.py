"""Records of several rounds by hand, for protocols that are looked at without anybody being asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from domain.models.deliberation import Deliberation
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.protocols.next_round import next_round
from domain.protocols.round_plan import Brief, RoundPlan
from domain.voting.ballot import Answer
from tests.protocol_fixture import asked_for
from tests.service_fixture import CHOICE

__all__ = ["FAILED", "NOON", "answers", "brief_of", "deliberation", "planned", "said"]

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
FAILED = "(failed)"
"""Instead of an answer: the agent failed."""


def deliberation(
    protocol: Protocol | ProtocolKind,
    agents: int,
    *,
    answer: AnswerFormat = CHOICE,
    seed: int | None = 7,
    own: str = "d",
) -> Deliberation:
    """One at work, of agents `archon-0` and so on."""
    return Deliberation(own, asked_for(protocol, agents, answer=answer, seed=seed), NOON).start(at=NOON)


def said(
    number: int, agent: int, answer: Answer, *, words: str | None = None, confidence: float | None = None
) -> AgentRecord:
    """How that agent ended in that round."""
    agent_id = f"archon-{agent}"
    if answer == FAILED:
        failure = FailureCause("refused", "no")
        return AgentRecord(number, agent_id, AgentState.FAILED, 1, NOON, NOON, failure=failure)
    state = AgentState.ABSTAINED if answer is None else AgentState.ANSWERED
    words = f"words of {agent} in {number}" if words is None else words
    return AgentRecord(number, agent_id, state, 1, NOON, NOON, answer=answer, confidence=confidence, reasoning=words)


def answers(number: int, *given: Answer) -> list[AgentRecord]:
    """How all agents ended in that round, the first one first."""
    return [said(number, agent, answer) for agent, answer in enumerate(given)]


def planned(held: Deliberation, records: list[AgentRecord]) -> RoundPlan:
    """The next round, of which there is one."""
    plan = next_round(held, records)
    assert plan is not None
    return plan


def brief_of(plan: RoundPlan, agent: int) -> Brief:
    """What that agent is shown."""
    briefs: Mapping[str, Brief | None] = {asked.agent_id: asked.brief for asked in plan.asked}
    brief = briefs[f"archon-{agent}"]
    assert brief is not None
    return brief
