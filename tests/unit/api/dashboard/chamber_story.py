"""A deliberation that is told to the chamber event by event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from api.dashboard.chamber_state import ChamberState
from api.documents import deliberation_document, output_document
from api.report.reading import Reading
from application.services.deliberation_output_service import WitnessedOutput
from domain.analysis.decision import decide
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.event import Event
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.ballot import Answer
from tests.deliberation_specimens import NOON
from tests.service_fixture import specification

__all__ = ["Given", "Story", "record_of"]

Given = Answer | AgentState


class Story:
    """A deliberation that is told event by event."""

    def __init__(self, agents: int = 5, **different: Any) -> None:
        self.specification: Specification = replace(specification(agents), **different)
        accepted = Deliberation.accept(
            self.specification, at=NOON, orchestrator="openai", simulated=False, key_name=None
        )
        self.deliberation = replace(accepted, id="d-1").start(at=NOON)
        self.state = ChamberState(replace(self.deliberation, status=DeliberationStatus.QUEUED, started_at=None))
        self.records: list[AgentRecord] = []
        self._sequence = 0
        self.tell(("deliberation.queued", {}), ("deliberation.started", {}))

    def tell(self, *told: tuple[str, Mapping[str, Any]], outputs: Sequence[WitnessedOutput] = ()) -> None:
        events = []
        for type_, data in told:
            self._sequence += 1
            events.append(Event("d-1", self._sequence, type_, NOON, data))
        self.state.take(events, outputs)

    def begin(self, number: int = 0, purpose: str = "answer", asked: int | None = None) -> None:
        """A round in which everybody is asked, or so many."""
        ids = [agent.id for agent in self.specification.roster.agents][:asked]
        self.tell(("round.started", {"round": number, "agents": ids, "purpose": purpose}))
        self.tell(*(("agent.started", {"round": number, "agent_id": own}) for own in ids))

    def hear(self, *said: Given, number: int = 0, reason: str = "because", usage: Usage | None = None) -> None:
        """How each agent in turn ended."""
        agents = self.specification.roster.agents
        records = [record_of(number, agent.id, each, reason) for agent, each in zip(agents, said, strict=False)]
        if usage is not None:
            records = [replace(each, usage=usage) for each in records]
        self.records += records
        self.tell(
            *(("agent.ended", {"round": number, "agent_id": r.agent_id, "state": r.state.value}) for r in records),
            outputs=[WitnessedOutput(record, 0, bytes(32), erased=False) for record in records],
        )

    def end(self, status: DeliberationStatus = DeliberationStatus.COMPLETED, reason: str | None = None) -> None:
        """The last event, and what stands in the record."""
        rounds, outcome = decide(self.deliberation, self.records)
        ended = self.deliberation.end(
            status,
            at=NOON,
            rounds=rounds,
            outcome=outcome if status is DeliberationStatus.COMPLETED else None,
            reason=reason,
        )
        outputs = [output_document(WitnessedOutput(each, 7, bytes(32), erased=False)) for each in self.records]
        self.tell((f"deliberation.{status.value}", {"status": status.value}))
        self.state.end(ended, Reading(deliberation_document(ended), outputs))

    @property
    def kinds(self) -> list[str]:
        return [mark.kind for mark in self.state.shown.seats.values()]

    @property
    def signs(self) -> list[str]:
        return [mark.sign for mark in self.state.shown.seats.values()]


def record_of(number: int, agent_id: str, given: Given, reason: str) -> AgentRecord:
    """What is recorded of an agent that gave this."""
    state = given if isinstance(given, AgentState) else AgentState.ABSTAINED if given is None else AgentState.ANSWERED
    return AgentRecord(
        number,
        agent_id,
        state,
        1,
        NOON,
        NOON,
        answer=None if isinstance(given, AgentState) else given,
        reasoning=reason if state.took_part else None,
        failure=None if state.took_part else FailureCause("server_error", "HTTP 503"),
    )
