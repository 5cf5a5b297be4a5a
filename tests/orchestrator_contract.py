"""The contract of `AgentOrchestratorProtocol`, for any orchestrator: a test module imports all of it and defines `opened`.

`opened` is a fixture that gives an `Opener`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Protocol

import pytest

from application.ports.agent_orchestrator import AgentOrchestratorProtocol, AgentOutput, AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.errors.agent import AgentInvocationError
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.llm_server.handle import LlmServer

AGENTS = [f"archon-{n}" for n in range(72)]
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")
OPTIONS = ("north", "south", "west")
EVERY_FORMAT = [
    AnswerFormat(
        kind, OPTIONS if kind.has_options else (), *((1.0, 10.0) if kind is AnswerKind.SCORE else (None, None))
    )
    for kind in AnswerKind
]


def persona_of(agent_id: str) -> str:
    return f"You are {agent_id}, nobody else."


def asking(agent_id: str = "archon-1", expected: AnswerFormat | None = None) -> AgentRequest:
    return AgentRequest(agent_id, CONTEXT, persona=persona_of(agent_id), expected=expected)


class Subject(Protocol):
    """An orchestrator under test, and the view of those whom it asks."""

    @property
    def orchestrator(self) -> AgentOrchestratorProtocol: ...

    async def until_asked(self, count: int) -> None:
        """Return when that many calls are under way at the far end at the same time."""

    async def until_idle(self) -> None:
        """Return when none is."""


class HttpSubject:
    """An orchestrator that asks over HTTP, seen from the test LLM server."""

    def __init__(self, orchestrator: AgentOrchestratorProtocol, server: LlmServer) -> None:
        self.orchestrator = orchestrator
        self._server = server

    async def until_asked(self, count: int) -> None:
        await self._server.until(in_flight_at_least=count)

    async def until_idle(self) -> None:
        await self._server.until(in_flight_at_most=0)


@asynccontextmanager
async def open_over_http(
    server: LlmServer, *, failing: tuple[str, ...] = (), hanging: tuple[str, ...] = ()
) -> AsyncIterator[HttpSubject]:
    """The orchestrator over HTTP, at a server whose agents behave as an `Opener` says."""
    server.reset()
    rules = [("500", failing), ("hang", hanging)]
    server.configure(
        latency_seconds={"lognormal": {"median": 0.002, "sigma": 1.0}},
        agents={agent_id: persona_of(agent_id) for agent_id in AGENTS},
        faults=[{"fault": fault, "agent": list(agents)} for fault, agents in rules if agents],
    )
    async with OpenAIOrchestrator(base_url=server.base_url, max_connections=len(AGENTS)) as orchestrator:
        yield HttpSubject(orchestrator, server)


Opener = Callable[..., AbstractAsyncContextManager[Subject]]
"""Opens a subject whose `failing` agents fail and whose `hanging` ones never answer; the others take varied times."""


async def test_an_output_carries_the_ids_of_its_request_and_a_text(opened: Opener) -> None:
    async with opened() as subject:
        request = asking()
        output = await subject.orchestrator.invoke(request)
    assert isinstance(output, AgentOutput)
    assert (output.agent_id, output.request_id) == (request.agent_id, request.request_id)
    assert output.content.strip()
    assert output.model
    assert output.generated_at.utcoffset() is not None


@pytest.mark.parametrize("expected", EVERY_FORMAT, ids=lambda expected: expected.kind.value)
async def test_the_ballot_asked_for_can_be_read(opened: Opener, expected: AnswerFormat) -> None:
    async with opened() as subject:
        output = await subject.orchestrator.invoke(asking(expected=expected))
    ballot = read_ballot("archon-1", output.content, expected)
    assert ballot.reasoning


async def test_usage_is_that_of_the_one_call_whatever_its_attempt(opened: Opener) -> None:
    async with opened() as subject:
        output = await subject.orchestrator.invoke(replace(asking(), attempt=2))
    assert output.usage.calls == 1
    assert output.usage.input_tokens >= 0
    assert output.usage.output_tokens >= 0


async def test_seventy_two_at_once_each_get_their_own_answer(opened: Opener) -> None:
    """A race: answers come in another order than the questions went, and the same asked alone has to say the same."""
    async with opened() as subject:
        requests = [asking(agent_id, AnswerFormat(AnswerKind.PROBABILITY)) for agent_id in AGENTS]
        together = await asyncio.gather(*(subject.orchestrator.invoke(request) for request in requests))
        alone = [await subject.orchestrator.invoke(request) for request in requests]
    assert [output.agent_id for output in together] == AGENTS
    assert [output.request_id for output in together] == [request.request_id for request in requests]
    assert [output.content for output in together] == [output.content for output in alone]
    assert len({output.content for output in together}) > 36


async def test_a_failure_is_an_invocation_error_that_names_its_agent(opened: Opener) -> None:
    async with opened(failing=("archon-3",)) as subject:
        with pytest.raises(AgentInvocationError) as caught:
            await subject.orchestrator.invoke(asking("archon-3"))
    error = caught.value
    assert (error.agent_id, error.state) == ("archon-3", AgentState.FAILED)
    assert error.kind.isidentifier()
    assert str(error)


async def test_one_that_fails_leaves_the_others_alone(opened: Opener) -> None:
    failing = tuple(AGENTS[::8])
    async with opened(failing=failing) as subject:
        requests = [asking(agent_id) for agent_id in AGENTS]
        endings = await asyncio.gather(
            *(subject.orchestrator.invoke(request) for request in requests), return_exceptions=True
        )
    assert {ending.agent_id for ending in endings if isinstance(ending, AgentInvocationError)} == set(failing)
    assert {ending.agent_id for ending in endings if isinstance(ending, AgentOutput)} == set(AGENTS) - set(failing)


async def test_cancelling_frees_the_far_end(opened: Opener) -> None:
    async with opened(hanging=tuple(AGENTS)) as subject:
        calls = [asyncio.create_task(subject.orchestrator.invoke(asking(agent_id))) for agent_id in AGENTS]
        await subject.until_asked(72)
        for call in calls:
            call.cancel()
        endings = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(ending, asyncio.CancelledError) for ending in endings)
        await subject.until_idle()


async def test_an_agents_deadline_frees_the_far_end(opened: Opener) -> None:
    async with opened(hanging=("archon-3",)) as subject:
        service = ConcurrentDeliberationService(orchestrator=subject.orchestrator, halt_checker=HaltCheckerStub())
        result = await service.invoke_concurrent([asking(agent_id) for agent_id in AGENTS], agent_timeout_s=5.0)
        await subject.until_idle()
    assert [(failure.agent_id, failure.state) for failure in result.failures] == [("archon-3", AgentState.TIMED_OUT)]
    assert result.success_count == 71
