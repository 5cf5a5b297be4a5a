"""What integration tests share: one test LLM server for the run, reset before each test that uses it, and one recorded file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm_server.handle import LlmServer


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
