"""What every test of the adapter for CrewAI gets: a model server, and the adapter over a client that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from infrastructure.orchestrators.crewai_orchestrator import CrewAIAdapter
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from tests.llm_server.handle import LlmServer


def pytest_configure(config: pytest.Config) -> None:
    """CrewAI uses what it and its packages deprecate themselves; our own code is held to it by the main suite."""
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning")


AdapterOpener = Callable[[], AbstractAsyncContextManager[CrewAIAdapter]]


@pytest.fixture(scope="session")
def running() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


@pytest.fixture
def server(running: LlmServer) -> LlmServer:
    running.reset()
    return running


@pytest.fixture
def crews_dir(tmp_path: Path) -> Path:
    """The folder of the rosters, where crews of the operator's own lie."""
    folder = tmp_path / "rosters"
    folder.mkdir()
    return folder


@pytest.fixture
def opened_adapter(server: LlmServer, crews_dir: Path, tmp_path: Path) -> AdapterOpener:
    @asynccontextmanager
    async def open_adapter() -> AsyncIterator[CrewAIAdapter]:
        async with (
            OpenAIOrchestrator(base_url=server.base_url, max_connections=96) as models,
            CrewAIAdapter(models=models, storage_dir=tmp_path / "crewai", crews_dir=crews_dir) as adapter,
        ):
            yield adapter

    return open_adapter
