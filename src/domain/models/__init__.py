"""The nouns of Conclave, exported lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from domain.models.agent import Agent, Persona, Roster
    from domain.models.agent_output import AgentFailure, AgentOutput
    from domain.models.agent_pool import MAX_CONCURRENT_AGENTS, AgentPool, BatchAcquisition
    from domain.models.budget import Limits, Quorum, Sampling, Usage
    from domain.models.deliberation import Deliberation, DeliberationStatus, Specification, WitnessSpan
    from domain.models.event import Event
    from domain.models.outcome import Change, Dissent, Outcome, OutcomeStatus, Position
    from domain.models.protocol import Protocol, ProtocolKind
    from domain.models.question import AnswerFormat, AnswerKind, Question
    from domain.models.roll_call import AgentState, RollCall
    from domain.models.round import AgentRecord, FailureCause, Round

_EXPORTS = {
    "agent": ("Agent", "Persona", "Roster"),
    "agent_output": ("AgentFailure", "AgentOutput"),
    "agent_pool": ("MAX_CONCURRENT_AGENTS", "AgentPool", "BatchAcquisition"),
    "budget": ("Limits", "Quorum", "Sampling", "Usage"),
    "deliberation": ("Deliberation", "DeliberationStatus", "Specification", "WitnessSpan"),
    "event": ("Event",),
    "outcome": ("Change", "Dissent", "Outcome", "OutcomeStatus", "Position"),
    "protocol": ("Protocol", "ProtocolKind"),
    "question": ("AnswerFormat", "AnswerKind", "Question"),
    "roll_call": ("AgentState", "RollCall"),
    "round": ("AgentRecord", "FailureCause", "Round"),
}

__all__ = [
    "MAX_CONCURRENT_AGENTS",
    "Agent",
    "AgentFailure",
    "AgentOutput",
    "AgentPool",
    "AgentRecord",
    "AgentState",
    "AnswerFormat",
    "AnswerKind",
    "BatchAcquisition",
    "Change",
    "Deliberation",
    "DeliberationStatus",
    "Dissent",
    "Event",
    "FailureCause",
    "Limits",
    "Outcome",
    "OutcomeStatus",
    "Persona",
    "Position",
    "Protocol",
    "ProtocolKind",
    "Question",
    "Quorum",
    "RollCall",
    "Roster",
    "Round",
    "Sampling",
    "Specification",
    "Usage",
    "WitnessSpan",
]


def __getattr__(name: str) -> object:
    for module, names in _EXPORTS.items():
        if name in names:
            return getattr(import_module(f"domain.models.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
