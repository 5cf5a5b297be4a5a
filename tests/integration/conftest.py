"""What integration tests share: one test LLM server for the run, reset before each test that uses it."""

from __future__ import annotations

from collections.abc import Iterator

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
