"""What integration tests share: one test LLM server for the run, reset before each test that uses it, one recorded file, and for each
file that asks a server of its own with simulated agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.llm_server.handle import LlmServer

if TYPE_CHECKING:
    from tests.conclave_fixture import RunningServer


@pytest.fixture(scope="session")
def llm_server_process() -> Iterator[LlmServer]:
    """The far end, in a process of its own."""
    with LlmServer() as server:
        yield server


@pytest.fixture
def llm_server(llm_server_process: LlmServer) -> LlmServer:
    """The far end as it is when it has just been started."""
    llm_server_process.reset()
    return llm_server_process


@pytest.fixture(scope="session")
def recorded_sqlite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with a small record. Never changed: whoever writes takes a copy."""
    from tests.integration.recorded_databases import recorded_file_below

    return recorded_file_below(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server on loopback whose agents answer at once."""
    from tests.conclave_fixture import running_server

    with running_server() as running:
        yield running


@pytest.fixture(scope="module")
def slow_server() -> Iterator[RunningServer]:
    """Its agents take until the test ends."""
    from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
    from tests.conclave_fixture import running_server

    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0)) as running:
        yield running


@pytest.fixture(scope="module")
def ended(server: RunningServer) -> dict[str, Any]:
    """A deliberation of 72 agents on `server` that has ended, as it was answered then."""
    from tests.integration.rest_questions import QUESTION

    document: dict[str, Any] = server.post(QUESTION, query="?wait=30").document
    assert document["status"] == "completed"
    return document
