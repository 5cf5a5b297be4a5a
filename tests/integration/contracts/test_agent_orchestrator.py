"""The contract of `AgentOrchestratorProtocol`, over the orchestrators that need no extra: simulated, over HTTP, recorded and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from infrastructure.orchestrators.exchange import Exchange, Heard, Reply
from infrastructure.orchestrators.provider_client import ProviderClient
from infrastructure.orchestrators.replay_orchestrator import RecordingOrchestrator, ReplayOrchestrator
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub, log_normal_latency
from tests.llm_server.handle import LlmServer
from tests.orchestrator_contract import *  # noqa: F403 - the tests
from tests.orchestrator_contract import AGENTS, HttpSubject, Opener, Subject, open_over_http, persona_of


class SimulatedSubject:
    """The stub, whose far end is itself."""

    def __init__(self, orchestrator: AgentOrchestratorStub) -> None:
        self.orchestrator = orchestrator

    async def until_asked(self, count: int) -> None:
        await asyncio.sleep(0)
        assert self.orchestrator.active_count == count

    async def until_idle(self) -> None:
        assert self.orchestrator.active_count == 0


@pytest.fixture(scope="module")
def running() -> Iterator[LlmServer]:
    with LlmServer() as server:
        yield server


@asynccontextmanager
async def open_simulated(*, failing: tuple[str, ...] = (), hanging: tuple[str, ...] = ()) -> AsyncIterator[Subject]:
    latency = log_normal_latency(0.002, 1.0)
    yield SimulatedSubject(AgentOrchestratorStub(latency_seconds=latency, failing=failing, hanging=hanging))


@asynccontextmanager
async def open_recording(
    server: LlmServer, folder: Path, *, failing: tuple[str, ...] = (), hanging: tuple[str, ...] = ()
) -> AsyncIterator[Subject]:
    async with open_over_http(server, failing=failing, hanging=hanging):
        client = ProviderClient(base_url=server.base_url, max_connections=len(AGENTS))
        async with RecordingOrchestrator(client, folder) as orchestrator:
            yield HttpSubject(orchestrator, server)


class SlowReplies:
    """Recorded replies that for some agents never come, as on a disk that hangs."""

    def __init__(self, exchange: Exchange, hanging: tuple[str, ...]) -> None:
        self.host = exchange.host
        self.open, self.close, self.get = exchange.open, exchange.close, exchange.get
        self.waiting = 0
        self.another = asyncio.Event()
        self._exchange = exchange
        self._hanging = [persona_of(agent_id).encode() for agent_id in hanging]

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        self.waiting += 1
        self.another.set()
        try:
            if any(persona in body for persona in self._hanging):
                await asyncio.Event().wait()
            return await self._exchange.post(path, body, most=most, streams=streams, heard=heard)
        finally:
            self.waiting -= 1


class ReplaySubject:
    """Replays each request as it was recorded a moment before."""

    def __init__(self, recorder: RecordingOrchestrator, folder: Path, hanging: tuple[str, ...]) -> None:
        self.orchestrator = self
        self._recorder = recorder
        self._replayer = ReplayOrchestrator(folder)
        self._replies: SlowReplies | None = None
        self._hanging = hanging
        self._replayer._client.wrap_exchange(self._slow)

    def _slow(self, exchange: Exchange) -> SlowReplies:
        self._replies = SlowReplies(exchange, self._hanging)
        return self._replies

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        if request.agent_id not in self._hanging:
            with suppress(AgentInvocationError):
                await self._recorder.invoke(request)
        return await self._replayer.invoke(request)

    async def until_asked(self, count: int) -> None:
        assert self._replies is not None
        while self._replies.waiting < count:
            self._replies.another.clear()
            await self._replies.another.wait()

    async def until_idle(self) -> None:
        assert self._replies is not None
        assert self._replies.waiting == 0


@asynccontextmanager
async def open_replay(
    server: LlmServer, folder: Path, *, failing: tuple[str, ...] = (), hanging: tuple[str, ...] = ()
) -> AsyncIterator[Subject]:
    async with open_over_http(server, failing=failing):
        client = ProviderClient(base_url=server.base_url, max_connections=len(AGENTS))
        async with RecordingOrchestrator(client, folder) as recorder:
            # So that the first model of the list is recorded, whoever is asked first.
            await client.list_models()
            yield ReplaySubject(recorder, folder, hanging)


@pytest.fixture(params=["simulated", "openai", "recording", "replay"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    if request.param == "simulated":
        return open_simulated
    server = request.getfixturevalue("running")
    if request.param == "openai":
        return partial(open_over_http, server)
    return partial(open_recording if request.param == "recording" else open_replay, server, tmp_path)
