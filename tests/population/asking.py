"""Models over the test LLM server for populations of tests: a desk as the service opens it."""

from __future__ import annotations

from contextlib import AsyncExitStack

from api.bootstrap.desk import provider_client
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_settings import ProviderSettings
from infrastructure.population.thinking.minds import Minds
from infrastructure.rosters.file_roster_source import FileRosterSource
from tests.llm_server.handle import LlmServer

__all__ = ["minds_over"]


def minds_over(server: LlmServer, *, slots: int = 32, requests_per_minute: int | None = None) -> Minds:
    """How that server is asked, and the built-in rosters."""
    settings = ProviderSettings("", server.base_url, max_concurrency=slots, requests_per_minute=requests_per_minute)

    def open_desk(stack: AsyncExitStack) -> ProviderDesk:
        desk = ProviderDesk(
            [settings],
            client_of=lambda provider, heard: provider_client(provider, slots=slots, heard=heard),
            default_model="test-model",
            slots=slots,
        )
        stack.push_async_callback(desk.close)
        return desk

    return Minds(open_desk=open_desk, roster=FileRosterSource(None).get)
