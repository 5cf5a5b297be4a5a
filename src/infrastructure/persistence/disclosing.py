"""What of a stored deliberation is text, and what is left of it once its texts are erased."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from application.ports.witness_log import Disclosure
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome
from domain.models.round import AgentRecord
from domain.witness.entry import commitment, salt_at
from infrastructure.persistence.standing import Result

__all__ = ["opened", "without_personas", "without_record_texts", "without_specification_texts", "without_texts"]


def opened(salts: bytes, texts: Sequence[str | None]) -> list[Disclosure]:
    """Each text with its salt, those that are None left out."""
    found = []
    for place, text in enumerate(texts):
        salt = salt_at(salts, place)
        committed = commitment(salt, text)
        if text is not None and committed is not None:
            found.append(Disclosure(committed["sha256"], salt.hex(), text))
    return found


def without_personas(roster: Roster) -> Roster:
    """The roster with its members and models, and nothing that they speak from."""
    return Roster(roster.name, tuple(Agent(agent.id, Persona(""), agent.model) for agent in roster.agents))


def without_specification_texts(deliberation: Deliberation) -> Deliberation:
    """The deliberation as it was asked for, without question, context, personas and notes of the caller."""
    asked = deliberation.specification
    bare = replace(
        asked,
        question=replace(asked.question, text="", context=None),
        roster=without_personas(asked.roster),
        metadata={},
        origin=None,
    )
    return replace(deliberation, specification=bare, question_salt=b"")


def without_record_texts(record: AgentRecord, *, answers_by_text: bool) -> AgentRecord:
    """How the agent ended, and its vote, but nothing that it said in words."""
    failure = None if record.failure is None else replace(record.failure, message="")
    answer = None if answers_by_text else record.answer
    return replace(record, content=None, reasoning=None, failure=failure, answer=answer)


def without_texts(result: Result) -> Result:
    """What a deliberation came to, without the words of agents in it."""
    failures = tuple(
        replace(lost, failure=None if lost.failure is None else replace(lost.failure, message=""))
        for lost in result.failures
    )
    return replace(result, failures=failures, outcome=None if result.outcome is None else _bare(result.outcome))


def _bare(outcome: Outcome) -> Outcome:
    positions = tuple(replace(position, reasons=()) for position in outcome.dissent.positions)
    bare = replace(outcome, dissent=replace(outcome.dissent, positions=positions))
    if outcome.synthesis is None:
        return bare
    claims = tuple(replace(claim, text=None) for claim in outcome.synthesis.claims)
    # What a synthesis decided is made of the words of agents.
    return replace(bare, decision=None, synthesis=replace(outcome.synthesis, claims=claims))
