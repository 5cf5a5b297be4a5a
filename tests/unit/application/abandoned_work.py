"""What a worker that died leaves behind, who finds it, and how to look at what became of it."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.process_registry import NoRegistry
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import House, abandon, specification
from tests.virtual_time import pass_time

__all__ = ["JumpingClock", "Noting", "Registry", "ends_of", "errors", "left_by_the_dead"]


_WORKER = "application.services.deliberation_worker"


class Registry(NoRegistry):
    """Knows of the deaths that a test tells it."""

    def __init__(self, own: str, *dead: str) -> None:
        super().__init__(own)
        self.gone = list(dead)

    def dead(self) -> list[str]:
        return list(self.gone)

    def forget(self, process: str) -> None:
        self.gone.remove(process)


class JumpingClock(VirtualClock):
    """A clock whose time of day is off by what a test says."""

    def __init__(self, off_s: float = 0.0) -> None:
        super().__init__()
        self.off_s = off_s

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.off_s)


async def left_by_the_dead(
    house: House, *, agents: int = 3, limits: Limits | None = None, wave_size: int | None = None
) -> Deliberation:
    """One at work for 5 s under a process that is then killed."""
    await house.service.start()
    running = await house.service.submit(specification(agents, limits=limits, wave_size=wave_size))
    await pass_time(5)
    await abandon(house)
    return running


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR and each.name == _WORKER]


def _ends(kinds: list[str]) -> list[str]:
    ends = {f"deliberation.{status.value}" for status in DeliberationStatus if status.is_terminal}
    return [kind for kind in kinds if kind in ends]


async def ends_of(house: House, deliberation_id: str) -> list[str]:
    events = await house.repository.events(deliberation_id, after=0, limit=10_000)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    return _ends([event.type for event in events])


class Noting:
    """Passes on to an orchestrator, and notes who was called under which attempt, and what came back."""

    def __init__(self, orchestrator: object) -> None:
        self._orchestrator = orchestrator
        self.called: list[tuple[str, int]] = []
        self.answered: list[str] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.called.append((request.agent_id, request.attempt))
        output: AgentOutput = await self._orchestrator.invoke(request)  # type: ignore[attr-defined]
        self.answered.append(request.agent_id)
        return output
