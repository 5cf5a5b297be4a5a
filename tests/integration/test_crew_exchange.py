"""The calls of a crew, which waits in another thread: one at a time, counted, bounded, and none after the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.crewai_exchange import MOST_CALLS, CrewStoppedError, Exchange
from infrastructure.orchestrators.prompts import build_prompt

REQUEST = AgentRequest(
    "archon-1", ContextBundle("t-1", "Should it be?"), persona="You look.", expected=AnswerFormat(AnswerKind.VERDICT)
)
NOTE = [("user", "What matters?")]


class Counting:
    """Models that answer at once, and say how many calls were under way at a time."""

    def __init__(self) -> None:
        self.asked: list[AgentRequest] = []
        self.at_a_time = self.most_at_a_time = 0

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.asked.append(request)
        self.at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.at_a_time)
        await asyncio.sleep(0)
        self.at_a_time -= 1
        return AgentOutput(request.agent_id, request.request_id, "a text", usage=Usage(1, 5, 1))


async def ask(exchange: Exchange, messages: list[tuple[str, str]] = NOTE, *, wants_ballot: bool = False) -> str:
    return await asyncio.to_thread(exchange.ask, messages, wants_ballot=wants_ballot)


async def test_the_prompt_of_everybody_goes_on_as_the_request_and_anything_else_as_its_messages() -> None:
    models = Counting()
    exchange = Exchange(models, REQUEST)
    prompt = build_prompt(REQUEST)
    await ask(exchange, [("system", prompt.system), ("user", prompt.user)], wants_ballot=True)
    await ask(exchange)
    await exchange.end()
    assert models.asked == [REQUEST, replace(REQUEST, messages=tuple(NOTE), expected=None)]


async def test_calls_of_one_request_are_made_one_at_a_time_and_all_of_them_counted() -> None:
    models = Counting()
    exchange = Exchange(models, REQUEST)
    await asyncio.gather(*(ask(exchange) for _ in range(8)))
    await exchange.end()
    assert (len(models.asked), models.most_at_a_time) == (8, 1)
    assert exchange.usage == Usage(8, 40, 8)


async def test_a_crew_that_does_not_end_is_ended() -> None:
    models = Counting()
    exchange = Exchange(models, REQUEST)
    for _ in range(MOST_CALLS):
        await ask(exchange)
    with pytest.raises(CrewStoppedError):
        await ask(exchange)
    error = exchange.broken.result()
    await exchange.end()
    assert isinstance(error, AgentInvocationError)
    assert error.kind == "crew_does_not_end"
    assert len(models.asked) == MOST_CALLS


async def test_after_the_end_nobody_is_asked() -> None:
    models = Counting()
    exchange = Exchange(models, REQUEST)
    await exchange.end()
    with pytest.raises(CrewStoppedError):
        await ask(exchange)
    assert models.asked == []
