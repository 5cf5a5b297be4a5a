"""Deliberations of several rounds in virtual time: what is asked, far ends that fail in chosen rounds, and the check of a whole record."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from api.bootstrap import verification_tools
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.record_check import require_recorded
from application.services.verification import verify_bundle
from application.services.verification.report import VerifiedDeliberation
from application.services.witness_service import WitnessService
from domain.errors.agent import AgentInvocationError
from domain.models.deliberation import Deliberation, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.rule import Rule, default_rule
from domain.witness.checkpoint import VerifierKey
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.virtual_time import VirtualClock
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.service_fixture import CHOICE, House, specification

__all__ = ["KINDS", "SEVERAL", "Troubled", "asked_for", "bundle_of", "proven", "said_in"]

SEVERAL = tuple(kind for kind in ProtocolKind if kind is not ProtocolKind.POLL)
"""The protocols that go on after the blind round."""

KINDS: dict[str, AnswerFormat] = {
    "choice": CHOICE,
    "approval": AnswerFormat(AnswerKind.APPROVAL, CHOICE.options),
    "ranking": AnswerFormat(AnswerKind.RANKING, CHOICE.options),
    "verdict": AnswerFormat(AnswerKind.VERDICT),
    "score": AnswerFormat(AnswerKind.SCORE, minimum=0, maximum=10),
    "probability": AnswerFormat(AnswerKind.PROBABILITY),
    "number": AnswerFormat(AnswerKind.NUMBER, unit="euros"),
    "text": AnswerFormat(AnswerKind.TEXT),
}


def asked_for(
    protocol: Protocol | ProtocolKind,
    agents: int = 6,
    *,
    answer: AnswerFormat = CHOICE,
    rule: Rule | None = None,
    seed: int | None = 7,
    **rest: Any,
) -> Specification:
    """A request with that protocol, and the rule that is used by default."""
    protocol = Protocol(protocol) if isinstance(protocol, ProtocolKind) else protocol
    asked = replace(specification(agents, answer=answer, seed=seed, **rest), protocol=protocol)
    return replace(asked, rule=rule or default_rule(asked.counted_answers.kind))


class Troubled:
    """Simulated agents after one second each, but for turns (round, agent) that fail, and others that hang. Keeps all requests."""

    def __init__(
        self,
        *,
        failing: Collection[tuple[int, str]] = (),
        hanging: Collection[tuple[int, str]] = (),
        agents: object | None = None,
    ) -> None:
        self.failing = failing
        self.hanging = hanging
        self.requests: list[AgentRequest] = []
        self._agents: Any = (
            agents if agents is not None else AgentOrchestratorStub(latency_seconds=1, abstaining_fraction=0)
        )

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.requests.append(request)
        turn = (request.round_number, request.agent_id)
        if turn in self.hanging:
            await asyncio.Event().wait()
        if turn in self.failing:
            raise AgentInvocationError("no", agent_id=request.agent_id, kind="refused")
        output: AgentOutput = await self._agents.invoke(request)
        return output

    def asked_in(self, number: int) -> list[str]:
        """Who was called in that round, in order."""
        return [request.agent_id for request in self.requests if request.round_number == number]


def said_in(deliberation: Deliberation) -> list[tuple[object, ...]]:
    """All that was recorded but times and costs: two runs with the same seed have the same."""
    return [
        (record.round_number, record.agent_id, record.state, record.answer, record.confidence, record.reasoning)
        for round_ in deliberation.rounds
        for record in round_.records
    ]


async def bundle_of(house: House, deliberation_id: str) -> tuple[bytes, VerifierKey]:
    """The verification bundle, as anyone may take it away, and the key that it is checked with."""
    signer = CheckpointSigner(SigningKey.from_seed(b"\x01" * 32), "house.test/log")
    witness = WitnessService(log=house.repository.log, signer=signer, tools=verification_tools(), clock=VirtualClock())
    return json.dumps(await witness.bundle(deliberation_id)).encode(), witness.verifier_key


async def proven(house: House, deliberation_id: str) -> VerifiedDeliberation:
    """Raise unless the store agrees with the log, and the bundle with itself: roll call, rounds and outcome are computed again."""
    for each in await house.repository.stored(after=0, limit=100):
        require_recorded(each)
    document, key = await bundle_of(house, deliberation_id)
    return verify_bundle(document, key=key, tools=verification_tools()).deliberations[0]
