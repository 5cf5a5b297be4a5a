"""The control of a deliberation: what one model says alone when it is asked as often as all agents together were to be called."""

from __future__ import annotations

from dataclasses import replace

from domain.models.agent import Agent, Persona, Roster
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS
from domain.models.control import control_id
from domain.models.deliberation import Deliberation, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.voting.rule import default_rule, rules_for

__all__ = ["CONTROL_OF", "control_of", "control_specification"]

CONTROL_OF = "control_of"
"""The name in the metadata of a control under which the id of its deliberation stands."""

_PERSONA = Persona("You speak for nobody but yourself and have no part to play.", "Control")
_ROUNDS_OF_PEER_REVIEW = 3
_ROUNDS_OF_COMMON_GROUND = 7


def control_specification(specification: Specification) -> Specification:
    """The same question by the same rule within the same limits, put to one model in one blind round.

    It is asked as often as the agents of the deliberation are called at most, but no more than 72 times.
    """
    model = None if specification.control is None else specification.control.model
    times = min(len(specification.roster.agents) * _rounds(specification.protocol), MAX_CONCURRENT_AGENTS)
    agents = tuple(Agent(f"control-{number}", _PERSONA, model) for number in range(1, times + 1))
    rule = specification.rule
    if rule.kind not in rules_for(specification.question.answer.kind):
        # That of statements which were found together, and nobody discusses these answers.
        rule = default_rule(specification.question.answer.kind)
    return replace(
        specification,
        rule=rule,
        roster=Roster("control", agents, "One model, asked again and again."),
        protocol=Protocol(),
        control=None,
        metadata={},
        origin=specification.topic_origin,
    )


def control_of(deliberation: Deliberation) -> Deliberation:
    """The control of a deliberation that was accepted, accepted at the same moment. Raises `InvalidSpecificationError`."""
    specification = control_specification(deliberation.specification)
    named = replace(specification, metadata={CONTROL_OF: deliberation.id})
    accepted = Deliberation.accept(
        named,
        at=deliberation.created_at,
        orchestrator=deliberation.orchestrator,
        simulated=deliberation.simulated,
        key_name=deliberation.key_name,
    )
    return replace(accepted, id=control_id(deliberation.id))


def _rounds(protocol: Protocol) -> int:
    if protocol.kind is ProtocolKind.DELPHI:
        return 1 + protocol.setting("max_rounds")
    if protocol.kind is ProtocolKind.DEBATE:
        return 2 + protocol.setting("rounds")
    if protocol.kind is ProtocolKind.PEER_REVIEW:
        return _ROUNDS_OF_PEER_REVIEW
    return _ROUNDS_OF_COMMON_GROUND if protocol.kind is ProtocolKind.COMMON_GROUND else 1
