"""Whole deliberations through the service on a real SQLite file: every outcome committed before it can be seen."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.ports.model_desk import ModelDesk
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.deliberation_service import DeliberationService, OrchestratorIdentity
from benchmarks.measurement import Run
from domain.models.agent import Roster
from domain.models.agent_pool import AgentPool
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.voting.rule import Rule, RuleKind
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.queues.embedded_queue import EmbeddedQueue
from infrastructure.rosters.file_roster_source import FileRosterSource
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub

__all__ = ["stored_deliberation"]


@asynccontextmanager
async def stored_deliberation(
    orchestrator: AgentOrchestratorProtocol,
    *,
    agents: int,
    at_a_time: int = 1,
    slots: int | None = None,
    desk: ModelDesk | None = None,
) -> AsyncIterator[Run]:
    """A run that takes `at_a_time` deliberations from acceptance to their committed end, in which everybody answers."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'conclave.db'}"
        await asyncio.to_thread(upgrade, url)
        database = await open_database(url)
        repository = SqlDeliberationRepository(database)
        halt = HaltCheckerStub()
        fan_out = ConcurrentDeliberationService(
            orchestrator=orchestrator, halt_checker=halt, pool=AgentPool(slots or agents), desk=desk
        )
        service = DeliberationService.with_worker(
            fan_out=fan_out,
            store=repository,
            queue=EmbeddedQueue(),
            halt_checker=halt,
            orchestrator=OrchestratorIdentity("benchmark", simulated=True),
        )
        roster = FileRosterSource(None).get("archons").first(agents)
        specification = _specification(roster)

        async def one() -> Deliberation:
            accepted = await service.submit(specification)
            return await service.wait(accepted.id, timeout_s=None)

        async def run() -> None:
            for ended in await asyncio.gather(*(one() for _ in range(at_a_time))):
                assert ended.status is DeliberationStatus.COMPLETED
                assert ended.roll_call[AgentState.ANSWERED] + ended.roll_call[AgentState.ABSTAINED] == agents

        await service.start()
        try:
            yield run
        finally:
            await service.stop(drain_s=0)
            await repository.close()
            await database.close()


def _specification(roster: Roster) -> Specification:
    answer = AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "weekends only"))
    question = Question("Should the city centre be closed to private cars?", None, answer)
    return Specification(question, roster, Rule(RuleKind.PLURALITY))
