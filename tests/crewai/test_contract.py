"""The contract of `AgentOrchestratorProtocol`, over CrewAI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from tests.llm_server.handle import LlmServer
from tests.orchestrator_contract import *  # noqa: F403 - the tests
from tests.orchestrator_contract import HttpSubject, Opener, Subject, open_over_http


@pytest.fixture
def opened(running: LlmServer) -> Opener:
    @asynccontextmanager
    async def over_crewai(*, failing: tuple[str, ...] = (), hanging: tuple[str, ...] = ()) -> AsyncIterator[Subject]:
        async with (
            open_over_http(running, failing=failing, hanging=hanging) as direct,
            CrewAIAdapter(models=direct.orchestrator) as adapter,
        ):
            yield HttpSubject(adapter, running)

    return over_crewai
