"""A service in virtual time on the in-memory store, and far ends that answer as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.clock import Clock
from application.ports.metrics import Metrics
from application.ports.model_desk import ModelDesk
from application.ports.process_registry import ProcessRegistry
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from application.services.text_synthesis import TextSynthesis
from domain.models.agent import Agent, Persona, Roster
from domain.models.agent_pool import AgentPool
from domain.models.budget import Limits, Quorum, Usage
from domain.models.deliberation import Deliberation, Specification
from domain.models.event import Event
from domain.models.protocol import Protocol
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.voting.rule import Rule, RuleKind
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.virtual_time import pass_time

__all__ = ["CHOICE", "Canned", "House", "abandon", "build", "finished", "history", "opened", "specification"]


CHOICE = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))


class Canned:
    """Answers each agent with the text given for it after one second; hangs where the text is None."""

    def __init__(self, answers: Mapping[str, str | None], default: str = '{"answer": "yes"}') -> None:
        self.answers = answers
        self.default = default
        self.calls: list[str] = []
        self.active = 0

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.calls.append(request.agent_id)
        self.active += 1
        try:
            text = self.answers.get(request.agent_id, self.default)
            if text is None:
                await asyncio.Event().wait()
            await pass_time(1)
            return AgentOutput(request.agent_id, request.request_id, text or "", usage=Usage(1))
        finally:
            self.active -= 1


@dataclass
class House:
    service: DeliberationService
    repository: InMemoryRepository
    halt: HaltCheckerStub
    pool: AgentPool
    queue: EmbeddedQueue


def build(
    orchestrator: object,
    repository: InMemoryRepository | None = None,
    *,
    halt: HaltCheckerStub | None = None,
    slots: int = 72,
    max_running: int = 10,
    max_queued: int = 100,
    registry: ProcessRegistry | None = None,
    clock: Clock | None = None,
    answers_as: str = "canned",
    queue: EmbeddedQueue | None = None,
    desk: ModelDesk | None = None,
    texts: TextSynthesis | None = None,
    metrics: Metrics | None = None,
) -> House:
    repository = repository if repository is not None else InMemoryRepository(clock=VirtualClock())
    halt = halt or HaltCheckerStub()
    pool = AgentPool(slots)
    fan_out = ConcurrentDeliberationService(
        orchestrator=orchestrator,  # type: ignore[arg-type]
        halt_checker=halt,
        pool=pool,
        clock=clock or VirtualClock(),
        desk=desk,
    )
    queue = queue if queue is not None else EmbeddedQueue()
    service = DeliberationService.with_worker(
        fan_out=fan_out,
        store=repository,
        queue=queue,
        halt_checker=halt,
        orchestrator=OrchestratorIdentity(answers_as, simulated=True),
        clock=clock or VirtualClock(),
        registry=registry,
        max_running=max_running,
        max_queued=max_queued,
        texts=texts,
        metrics=metrics,
    )
    return House(service, repository, halt, pool, queue)


@asynccontextmanager
async def opened(house: House) -> AsyncIterator[House]:
    await house.service.start()
    try:
        yield house
    finally:
        await house.service.stop(drain_s=0.1)


def specification(
    agents: int = 5,
    *,
    answer: AnswerFormat = CHOICE,
    rule: Rule | None = None,
    limits: Limits | None = None,
    quorum: Quorum | None = None,
    wave_size: int | None = None,
    seed: int | None = None,
) -> Specification:
    members = [Agent(f"archon-{n}", Persona(f"viewpoint {n}")) for n in range(agents)]
    return Specification(
        Question("Should the city centre be closed to private cars?", None, answer),
        Roster.assemble("test", members),
        rule or Rule(RuleKind.PLURALITY),
        protocol=Protocol(wave_size=wave_size),
        limits=limits or Limits(),
        quorum=quorum or Quorum(),
        seed=seed,
    )


async def finished(house: House, spec: Specification) -> Deliberation:
    accepted = await house.service.submit(spec)
    return await house.service.wait(accepted.id, timeout_s=None)


async def history(house: House, deliberation_id: str, after: int = 0) -> list[Event]:
    return [event async for event in house.service.events(deliberation_id, after=after) if event is not None]


async def abandon(house: House) -> None:
    """What SIGKILL leaves behind: nothing is said, nothing is released."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
